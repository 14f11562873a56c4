"""Where a model comes from: the bundled one, a local folder, or the Hugging Face hub.

Only safetensors weights are ever fetched or read, and no code from a repository is run.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from transact.errors import CheckpointBroken, ModelNotFound
from transact.progress import NO_PROGRESS, Progress
from transact.spec import ModelSpec

BUNDLED = "bundled"
BUNDLED_DIRECTORY = Path(__file__).resolve().parents[1] / "assets" / "model"

_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")
_SAMPLED_BLOCKS, _BLOCK_BYTES = 64, 4096


@dataclass(frozen=True)
class Source:
    """A place a model is loaded from. `directory` is None until a hub model's weights are downloaded."""

    name: str
    revision: str | None
    directory: Path | None
    config: dict


def resolve(name: str, revision: str | None = None) -> Source:
    """Find a model and read its raw configuration; no weight is touched.

    Raises `ModelNotFound` (with the reason) or `CheckpointBroken` (unreadable config.json).
    """
    name = name.strip() if isinstance(name, str) else str(name)
    if not name:
        raise ModelNotFound(
            f'No model was named. Give a hub id such as "HuggingFaceTB/SmolLM2-135M", a local folder, or "{BUNDLED}".'
        )
    if name == BUNDLED:
        return Source(BUNDLED, None, BUNDLED_DIRECTORY, _read_config(BUNDLED_DIRECTORY / "config.json", name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(str(folder), None, folder, _read_config(folder / "config.json", name))
    if folder.exists():
        raise ModelNotFound(f"{name} is a file. Give the folder that holds config.json and the safetensors.")
    try:
        validate_repo_id(name)
    except hub_errors.HFValidationError:
        raise ModelNotFound(
            f"There is no folder {name!r}, and it is not a hub id either. Give an existing folder or an id "
            'such as "HuggingFaceTB/SmolLM2-135M".'
        ) from None
    with _hub_errors(name, revision):
        config = Path(hf_hub_download(name, "config.json", revision=revision))
    return Source(name, config.parent.name, None, _read_config(config, name))


def download(source: Source, progress: Progress = NO_PROGRESS) -> Source:
    """The same source with its files on disk; the bundled model and local folders have theirs already."""
    if source.directory is not None:
        return source
    progress(0, 1, "download")
    with _hub_errors(source.name, source.revision):
        directory = snapshot_download(source.name, revision=source.revision, allow_patterns=list(_FILES))
    progress(1, 1, "download")
    return Source(source.name, source.revision, Path(directory), source.config)


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors shards of a checkpoint; raises `CheckpointBroken` if there are none or one is missing."""
    index = directory / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            files = tuple(directory / Path(name).name for name in names)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointBroken(f"{index.name} is not a valid index. Download the checkpoint again.") from None
    else:
        files = tuple(sorted(directory.glob("*.safetensors")))
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise CheckpointBroken(f"The weight file {missing[0]} is missing. Download the checkpoint again.")
    if not files:
        raise CheckpointBroken(
            "The checkpoint has no safetensors file; pickled weights (.bin, .pt) are not opened because they can "
            "run code. Convert it to safetensors."
        )
    return files


def check_weights(files: tuple[Path, ...], spec: ModelSpec) -> str:
    """Compare the tensors' shapes with the configuration, from the file headers alone.

    Returns the stored dtype of the weights in torch's spelling. Raises `CheckpointBroken` for a truncated
    file, a missing tensor or a shape that contradicts config.json.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: list[str] = []
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                    entry = tensors.get_slice(name)
                    shapes[name] = tuple(entry.get_shape())
                    dtypes.append(entry.get_dtype())
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointBroken(
                f"{file.name} cannot be read ({error}); it is truncated or damaged. Download it again."
            ) from None
    for name, expected in spec.tensor_shapes():
        if name not in shapes:
            raise CheckpointBroken(f"The checkpoint has no tensor {name}, which config.json calls for.")
        if shapes[name] != expected:
            raise CheckpointBroken(
                f"{name} has shape {list(shapes[name])}, but config.json calls for {list(expected)}. "
                "Use the config.json that belongs to these weights."
            )
    return {"BF16": "bfloat16", "F16": "float16", "F64": "float64"}.get(max(set(dtypes), key=dtypes.count), "float32")


def content_digest(files: tuple[Path, ...]) -> str:
    """A digest of local weights: their sizes, headers and evenly spaced blocks, whatever the folder's name.

    Reading a quarter of a megabyte a file tells fine-tunes apart without hashing gigabytes.
    """
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            for block in range(_SAMPLED_BLOCKS):
                stream.seek(block * max(size - _BLOCK_BYTES, 0) // (_SAMPLED_BLOCKS - 1))
                total.update(stream.read(_BLOCK_BYTES))
    return total.hexdigest()[:16]


def card_file(name: str, revision: str | None) -> Path | None:
    """The model card that lies beside the weights on this disk, if there is one."""
    if name == BUNDLED:
        card = BUNDLED_DIRECTORY / "README.md"
    elif Path(name).expanduser().is_dir():
        card = Path(name).expanduser() / "README.md"
    else:
        try:
            cached = try_to_load_from_cache(name, "README.md", revision=revision)
        except hub_errors.HFValidationError:
            return None
        card = Path(cached) if isinstance(cached, str) else None
    return card if card is not None and card.is_file() else None


def _read_config(path: Path, name: str) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointBroken(f"{name} has no config.json. Give the folder of a transformers checkpoint.") from None
    except (ValueError, OSError):
        raise CheckpointBroken(f"config.json of {name} is not valid JSON. Download it again.") from None
    if not isinstance(config, dict):
        raise CheckpointBroken(f"config.json of {name} is not a JSON object. Download it again.")
    return config


@contextmanager
def _hub_errors(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub client raises into one sentence each."""
    try:
        yield
    except hub_errors.GatedRepoError:
        raise ModelNotFound(
            f"{name} is gated: accept its terms on its hub page and sign in (set HF_TOKEN), then load it again."
        ) from None
    except hub_errors.RepositoryNotFoundError:
        raise ModelNotFound(
            f"The hub has no public model {name!r}. Check the spelling; for a private model sign in (set HF_TOKEN)."
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise ModelNotFound(f"{name} has no revision {revision!r}. Leave it empty for the default.") from None
    except hub_errors.LocalEntryNotFoundError as error:
        raise ModelNotFound(_unreachable(name)) from error
    except hub_errors.EntryNotFoundError:
        raise ModelNotFound(f"{name} has no config.json, so it is no transformers checkpoint.") from None
    except (hub_errors.OfflineModeIsEnabled, hub_errors.HTTPError, ConnectionError) as error:
        raise ModelNotFound(_unreachable(name)) from error
    except OSError as error:
        raise ModelNotFound(f"{name} could not be stored on disk ({error.strerror or error}).") from error


def _unreachable(name: str) -> str:
    offline = " (offline mode is on: HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return (
        f"The hub could not be reached{offline}, and {name} is not in the local cache. Check the connection, "
        f'or use a local folder or "{BUNDLED}".'
    )
