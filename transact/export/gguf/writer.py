"""A model as one GGUF file, which llama.cpp and what builds on it run, with tokenizer and chat template.

A uniform model keeps its family's architecture. One with layers of different sizes becomes a `deci`, which llama.cpp
reads layer by layer: nothing is padded, the whole saving stays.
"""

import os
import secrets
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from transact.errors import SaveRefused, choice
from transact.models.loaded_model import LoadedModel
from transact.progress import NO_PROGRESS, Progress

GGUF_TYPES = ("f32", "f16", "bf16", "q8_0")
"""How matrices can be stored; vectors are float32 always."""


@dataclass(frozen=True)
class GgufReport:
    """What was written: `architecture` as llama.cpp calls it, the size in `bytes`, and `notes` in words."""

    path: str
    architecture: str
    file_type: str
    bytes: int
    notes: tuple[str, ...]


def save_gguf(
    loaded: LoadedModel, path: str | Path, *, file_type: str = "f16", progress: Progress = NO_PROGRESS
) -> GgufReport:
    """Write the model as one new GGUF file, a tensor at a time; the file appears only when all of it is written.

    `file_type` is one of `GGUF_TYPES`; q8_0 has blocks of 32 numbers with a common scale, and matrices whose rows do
    not fill such blocks are stored in float16. Raises `SaveRefused` if the package `gguf` is missing, if the file
    exists or the disk refuses, and where llama.cpp could not compute what the model computes or would read text
    otherwise; `InvalidOption` for another file type.
    """
    choice(file_type, GGUF_TYPES, "GGUF file type")
    if find_spec("gguf") is None:
        raise SaveRefused("Writing GGUF needs the package gguf, which is not installed: pip install gguf")
    from transact.export.gguf.contents import GgufFile

    path = _free_destination(path)
    file = GgufFile.of(loaded, file_type)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.write(partial, progress)
        os.replace(partial, path)
    except OSError as error:
        raise SaveRefused(f"{path} could not be written ({error}). Free some space or choose another place.") from error
    finally:
        partial.unlink(missing_ok=True)
    return GgufReport(str(path), file.architecture.name, file_type, path.stat().st_size, file.notes)


def _free_destination(path: str | Path) -> Path:
    try:
        path = Path(path).expanduser().resolve()
        taken = path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise SaveRefused(f"{str(path)!r} cannot be a file ({error}). Choose another place.") from None
    if taken:
        raise SaveRefused(f"{path} exists and would be overwritten. Choose a new name.")
    return path
