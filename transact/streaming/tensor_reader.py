"""Tensors of safetensors files, read one at a time into memory of their own.

The files are read and never mapped: pages of a mapped file count as this process's memory once they were touched,
which after a pass over all layers would be the whole checkpoint.

Format: 8 bytes with the header's length, the header as JSON (name -> dtype, shape, place), the tensors' bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from transact.errors import CheckpointBroken
from transact.progress import NO_CHECK, Check
from transact.spec.family import Family

TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PIECE_BYTES = 4 << 20
_READ_BYTES = 64 << 20
"""Bytes read at a time; cancellation is checked in between."""
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """Where one tensor is: its bytes begin at `start` of `file`."""

    file: Path
    start: int
    dtype: str
    shape: tuple[int, ...]


class TensorFiles:
    """All tensors of a checkpoint of that family by the names that the stock class has for them.

    Files may rename some (`Family.file_names`), and those of a bare decoder leave out its own name in front.

    The headers have to be valid (`transact.models.sources.check_weights`).
    """

    def __init__(self, files: tuple[Path, ...], family: Family):
        self._family = family
        self._entries: dict[str, Entry] = {}
        for file in files:
            with file.open("rb") as stream:
                length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
                header = json.loads(stream.read(length))
            for name, entry in header.items():
                if name != "__metadata__":
                    start = _LENGTH_BYTES + length + entry["data_offsets"][0]
                    self._entries[name] = Entry(file, start, entry["dtype"], tuple(entry["shape"]))

    def names(self) -> tuple[str, ...]:
        """The names in the files."""
        return tuple(self._entries)

    def find(self, name: str) -> str | None:
        """The name under which the files hold a model's tensor; None where they lack it."""
        return next((each for each in self._family.names_in_files(name) if each in self._entries), None)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an existing tensor."""
        return self._entries[self.find(name) or name].shape

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in the files; raises `CheckpointBroken` where it is not supported."""
        return TORCH_DTYPES[self._entry(name).dtype]

    def read(self, name: str, dtype: torch.dtype, check: Check = NO_CHECK) -> torch.Tensor:
        """The whole tensor; `check` is called at every piece of it."""
        entry = self._entry(name)
        if TORCH_DTYPES[entry.dtype] == dtype:
            with entry.file.open("rb", buffering=0) as stream:
                stream.seek(entry.start)
                return _elements(stream, prod(entry.shape), entry, check).view(entry.shape)
        tensor = torch.empty(entry.shape, dtype=dtype)
        flat, done = tensor.view(-1), 0
        for piece in self.pieces(name, dtype):
            check()
            flat[done : done + len(piece)] = piece
            done += len(piece)
        return tensor

    def pieces(self, name: str, dtype: torch.dtype | None = None) -> Iterator[torch.Tensor]:
        """The tensor's elements in their order, some megabytes at a time, each piece [element].

        They are as stored unless a dtype is given.
        """
        entry = self._entry(name)
        width = TORCH_DTYPES[entry.dtype].itemsize
        left = prod(entry.shape)
        with entry.file.open("rb", buffering=0) as stream:
            stream.seek(entry.start)
            while left:
                count = min(left, _PIECE_BYTES // width)
                yield _elements(stream, count, entry).to(dtype or TORCH_DTYPES[entry.dtype])
                left -= count

    def rows(self, name: str, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The tensor with those `rows` (sorted, each once) read; the others are left uninitialised.

        Memory that was never written takes no room, so a large table costs what its used rows do.
        """
        entry = self._entry(name)
        width = entry.shape[1]
        tensor = torch.empty(entry.shape, dtype=dtype)
        with entry.file.open("rb", buffering=0) as stream:
            for row in rows.tolist():
                stream.seek(entry.start + row * width * TORCH_DTYPES[entry.dtype].itemsize)
                tensor[row] = _elements(stream, width, entry).to(dtype)
        return tensor

    def _entry(self, name: str) -> Entry:
        entry = self._entries[self.find(name) or name]
        if entry.dtype not in TORCH_DTYPES:
            raise CheckpointBroken(
                f"{name} is stored as {entry.dtype}, which is not read here; {', '.join(TORCH_DTYPES)} are. Convert "
                "the checkpoint to one of them."
            )
        return entry


def _elements(stream, count: int, entry: Entry, check: Check = NO_CHECK) -> torch.Tensor:
    dtype = TORCH_DTYPES[entry.dtype]
    buffer = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    view, done = memoryview(buffer.numpy()), 0
    while done < len(view):
        check()
        count_read = stream.readinto(view[done : done + _READ_BYTES])
        if not count_read:
            raise CheckpointBroken(f"{entry.file.name} ended while it was read; it has changed. Download it again.")
        done += count_read
    return buffer.view(dtype)
