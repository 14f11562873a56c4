"""What a dataset says of itself, looked at before any of it is read: which commit it is, and where its files lie.

A card may name its files by any address: one of this machine, or of the network that this machine can reach. Those of
another place than the dataset's own are refused, and the commit is fixed, so that what was looked at is what is read.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from huggingface_hub import DatasetCard, HfApi, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

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
        if name == _CARD:
            settings = DatasetCard.load(file).data.to_dict()
        else:
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        named = settings.get("configs") if isinstance(settings, dict) else None
        for address in _strings(named):
            if _leads_out(address):
                raise WrongInput(
                    f"{place} names a file outside of itself (“{address[:100]}”), which is not read here; choose "
                    "another dataset."
                )


def _strings(value) -> Iterator[str]:
    """Every text in the values of a YAML mapping, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, within in value.items():
            if key != "config_name":
                yield from _strings(within)
    elif isinstance(value, list):
        for within in value:
            yield from _strings(within)


def _leads_out(address: str) -> bool:
    path = address.replace("\\", "/")
    return "://" in path or "::" in path or path.startswith(("/", "~")) or path[1:2] == ":" or ".." in path.split("/")
