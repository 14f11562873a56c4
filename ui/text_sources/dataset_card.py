"""What a dataset says of itself, looked at before any of it is read: which commit it is, and where its files lie.

A card may name its files by any address: one of this machine, or of the network that this machine can reach. Those of
another place than the dataset's own are refused, and the commit is fixed, so that what was looked at is what is read.
"""

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from transact.models.front_matter import front_matter, settings
from ui.errors import WrongInput

_CARD, _SETTINGS = "README.md", ".huggingface.yaml"
_ANSWER_SECONDS = 30


def pinned(place: str) -> str | None:
    """The commit of a hub dataset, None for a local folder.

    Raises `WrongInput` where its card names files elsewhere, and what the hub client raises.
    """
    if Path(place).is_dir():
        _check(place, {name: Path(place) / name for name in (_CARD, _SETTINGS)})
        return None
    commit = HfApi().dataset_info(place, timeout=_ANSWER_SECONDS).sha
    files = {}
    for name in (_CARD, _SETTINGS):
        try:
            files[name] = Path(hf_hub_download(place, name, repo_type="dataset", revision=commit))
        except EntryNotFoundError:
            continue
    _check(place, files)
    return commit


def _check(place: str, files: dict[str, Path]) -> None:
    for name, file in files.items():
        if not file.is_file():
            continue
        said = front_matter(file) if name == _CARD else settings(file)
        for address in _strings(said.get("configs"), set()):
            if _leads_out(address):
                raise WrongInput(
                    f"{place} names a file outside of itself (“{address[:100]}”), which is not read here; choose "
                    "another dataset."
                )


def _strings(value, seen: set[int]) -> Iterator[str]:
    """Every text in the values of a YAML mapping, however deep; parts that are repeated, once. `seen`: their ids."""
    if isinstance(value, str):
        yield value
    elif id(value) in seen:
        return
    elif isinstance(value, dict):
        seen.add(id(value))
        for key, within in value.items():
            if key != "config_name":
                yield from _strings(within, seen)
    elif isinstance(value, list):
        seen.add(id(value))
        for within in value:
            yield from _strings(within, seen)


def _leads_out(address: str) -> bool:
    path = address.replace("\\", "/")
    return "://" in path or "::" in path or path.startswith(("/", "~")) or path[1:2] == ":" or ".." in path.split("/")
