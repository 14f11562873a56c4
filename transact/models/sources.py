"""Where a model comes from: the bundled one, a local folder, or the Hugging Face hub.

Only safetensors weights are ever fetched or read, and no code from a repository is run.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import BinaryIO

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from transact.assets import ASSETS
from transact.errors import CheckpointBroken, ModelNotFound
from transact.models import hub
from transact.models.stored_weights import TORCH_DTYPES, check_shape, headers
from transact.progress import NO_CHECK, NO_PROGRESS, Check, Progress
from transact.spec.model_spec import ModelSpec

BUNDLED = "bundled"
"""The source that `load` takes for the model in `assets/model`."""
BUNDLED_DIRECTORY = ASSETS / "model"

_MAX_CONFIG_BYTES = 2_000_000
"""Real ones have kilobytes; a larger one could fill memory before anything else is checked."""
_MAX_JSON_BYTES = 50_000_000
"""Limit of other JSON files; the largest models have an index of ten megabytes."""
_WIDEST_ELEMENT = 8
_BESIDE_WEIGHTS_BYTES = 500_000_000
"""Bytes of a weight in float64, and what tokenizer and card may add; a repository beyond that fills the disk."""
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w./+-]{0,199}")
"""Branches, tags, commits and `refs/pr/1`; nothing that could lead out of the cache's folder."""
_CONSTANT = re.compile(
    r"(^|\.)((self_|cross)?(attn|attention)\.(masked_)?bias|rotary_emb\.inv_freq|position_ids|decoder\.version)$"
)
_WHOLE_FILE_BYTES = 512 << 20
_SAMPLED_BLOCKS, _BLOCK_BYTES = 4096, 4096
_PIECE_BYTES = 16 << 20


@dataclass(frozen=True)
class Source:
    """A place a model is loaded from. `directory` is None until a hub model's weights are downloaded."""

    name: str
    revision: str | None
    directory: Path | None
    config: dict

    @property
    def folder(self) -> Path:
        """The directory, of a source whose files are on this disk: after `download` all are."""
        assert self.directory is not None, f"{self.name} is not downloaded"
        return self.directory


def resolve(name: str, revision: str | None = None, progress: Progress = NO_PROGRESS) -> Source:
    """Find a model and read its raw configuration; no weight is touched.

    Raises `ModelNotFound` (with the reason), `CheckpointBroken` (unreadable config.json), and what `progress` raises
    while it waits for the hub.
    """
    name = name.strip() if isinstance(name, str) else str(name)
    if not name:
        raise ModelNotFound(
            f'No model was named. Give a hub id such as "HuggingFaceTB/SmolLM2-135M", a local folder, or "{BUNDLED}".'
        )
    folder = local_folder(name)
    if folder is not None:
        return Source(name, None, folder, _read_config(folder / "config.json", name))
    if _exists(name):
        raise ModelNotFound(f"{name} is a file. Give the folder that holds config.json and the safetensors.")
    if not is_hub_id(name):
        raise ModelNotFound(
            f"There is no folder {name[:200]!r}, and it is not a hub id either. Give an existing folder or an id such "
            'as "HuggingFaceTB/SmolLM2-135M".'
        )
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ModelNotFound(
            f"{revision[:200]!r} cannot be a revision of {name}. Give a branch, a tag or a commit, or leave it empty "
            "for the default."
        )
    config = hub.find_config(name, revision, at_most=_MAX_CONFIG_BYTES, progress=progress)
    return Source(name, config.parent.name, None, _read_config(config, name))


def local_folder(name: str) -> Path | None:
    """The folder that a name stands for: the bundled model's, or one on this disk; None for anything else."""
    if name == BUNDLED:
        return BUNDLED_DIRECTORY
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL: no folder of this disk
        return None


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id; a path that does not exist may have it too."""
    if name == BUNDLED or name.startswith((".", "/", "~")) or local_folder(name) is not None:
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def download(source: Source, parameters: int, progress: Progress = NO_PROGRESS) -> Source:
    """The same source with its files on disk; the bundled model and local folders have theirs already.

    Raises `CheckpointBroken` for more bytes than a model of `parameters` parameters can need.
    """
    if source.directory is not None:
        return source
    assert source.revision is not None, "one of the hub has its commit"
    at_most = parameters * _WIDEST_ELEMENT + _BESIDE_WEIGHTS_BYTES
    return replace(source, directory=hub.fetch(source.name, source.revision, at_most=at_most, progress=progress))


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors shards of a checkpoint; raises `CheckpointBroken` if there are none or one is missing.

    Also where the files of JSON beside them are larger than any are: as objects they would fill memory.
    """
    for name in ("model.safetensors.index.json", "generation_config.json"):
        file = directory / name
        if file.is_file() and file.stat().st_size > _MAX_JSON_BYTES:
            raise CheckpointBroken(
                f"{name} has {file.stat().st_size / 1e6:,.0f} MB, and at most {_MAX_JSON_BYTES / 1e6:.0f} MB are read. "
                "Choose another checkpoint."
            )
    single = directory / "model.safetensors"
    if single.exists():
        return (single,)
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        raise CheckpointBroken(
            "The checkpoint has no safetensors file; pickled weights (.bin, .pt) are not opened because they can run "
            "code. Convert it to safetensors."
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("a name leads out of the folder")
        files = tuple(directory / name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        raise CheckpointBroken(f"{index.name} is not a valid index. Download the checkpoint again.") from None
    missing = [file.name for file in files if not file.exists()]
    if missing or not files:
        raise CheckpointBroken(
            f"The weight file {(missing or ['named by the index'])[0]} is missing. Download the checkpoint again."
        )
    return files


def check_weights(files: tuple[Path, ...], spec: ModelSpec) -> str:
    """Compare the tensors' shapes with the configuration, from the file headers alone.

    Returns the stored dtype of the weights in torch's spelling, where they differ the one that most numbers have.
    Raises `CheckpointBroken` for a truncated file, a missing tensor or a shape that contradicts config.json.
    """
    held = headers(files)
    numbers: Counter[str] = Counter()
    head = (f"{spec.layout.head}.weight", (spec.vocab_size, spec.hidden_size))
    for name, expected in chain(spec.tensor_shapes(), (head,)):
        stored_name = next((each for each in spec.layout.names_in_files(name) if each in held), None)
        if stored_name is None and name == head[0]:  # it may be tied to the embeddings
            continue
        if stored_name is None:
            raise CheckpointBroken(f"The checkpoint has no tensor {name}, which config.json calls for.")
        shape, dtype = held[stored_name]
        check_shape(stored_name, shape, expected)
        numbers[dtype] += prod(shape)
    return TORCH_DTYPES.get(numbers.most_common(1)[0][0], "float32")


def is_constant(name: str) -> bool:
    """Whether older files hold a tensor of that name which stock classes ignore, as they compute it themselves.

    Causal masks and what they put in (GPT-2's `attn.bias` and `attn.masked_bias`), rotary frequencies, numbers of
    positions and of versions.
    """
    return _CONSTANT.search(name) is not None


def content_digest(files: tuple[Path, ...], check: Check = NO_CHECK) -> str:
    """A digest of local weights, whatever the folder's name.

    Files of up to half a gigabyte are hashed whole; of larger ones the size, the header and 4,096 evenly
    spaced blocks of 4 KiB, which a fine-tune cannot miss and a hand-made edit of a few weights can.
    """
    total = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        total.update(f"{file.name}:{size};".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE_FILE_BYTES:
                total.update(_file_digest(stream, check))
                continue
            for block in range(_SAMPLED_BLOCKS):
                stream.seek(block * (size - _BLOCK_BYTES) // (_SAMPLED_BLOCKS - 1))
                total.update(stream.read(_BLOCK_BYTES))
    return total.hexdigest()[:16]


def _file_digest(stream: BinaryIO, check: Check) -> bytes:
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE_BYTES):
        check()
        digest.update(piece)
    return digest.digest()


def card_file(name: str, revision: str | None) -> Path | None:
    """The model card that lies beside the weights on this disk, if there is one."""
    folder = local_folder(name)
    card = hub.cached_card(name, revision) if folder is None else folder / "README.md"
    return card if card is not None and card.is_file() else None


def _read_config(path: Path, name: str) -> dict:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("too large")
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointBroken(f"{name} has no config.json. Give the folder of a transformers checkpoint.") from None
    except (ValueError, OSError, RecursionError):
        raise CheckpointBroken(
            f"config.json of {name} is not valid JSON of at most {_MAX_CONFIG_BYTES / 1e6:.0f} MB. Download it again."
        ) from None
    if not isinstance(config, dict):
        raise CheckpointBroken(f"config.json of {name} is not a JSON object. Download it again.")
    return config
