"""safetensors files written tensor by tensor, in an order that is fixed beforehand.

Shapes are known before weights are, so that headers are written first and nothing is kept for them; writing can resume
at any tensor. Format: see `transact.streaming.tensor_reader`.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import torch

from transact.export.file_tensors import narrowed
from transact.export.tensor_writer import header, write_elements
from transact.progress import NO_CHECK, Check

MAX_SHARD_BYTES = 5_000_000_000
"""Bytes of one file unless a single tensor has more; what `huggingface_hub` writes."""


@dataclass(frozen=True)
class _Shard:
    """`starts[tensor]`: where its bytes begin in the file; the header is padded, so that the first is aligned."""

    file: Path
    header: bytes
    starts: dict[str, int]
    end: int


class ShardWriter:
    """Writes the tensors of `shapes` in their order as one checkpoint in `folder`, in `dtype` but for `exceptions`."""

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
        exceptions: Mapping[str, torch.dtype] = MappingProxyType({}),
    ):
        self._names = list(shapes)
        self._dtypes = {name: exceptions.get(name, dtype) for name in shapes}
        self._bytes = {name: prod(shape) * self._dtypes[name].itemsize for name, shape in shapes.items()}
        groups = _groups(self._bytes)
        files = [folder / _file_name(number, len(groups)) for number in range(len(groups))]
        self._shards = [self._shard(file, names, shapes) for file, names in zip(files, groups, strict=True)]
        self._folder = folder
        self._next = 0
        self._stream: BinaryIO | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(self._bytes.values())

    @property
    def written_bytes(self) -> int:
        """Bytes of the tensors written so far."""
        return sum(self._bytes[name] for name in self._names[: self._next])

    def begin_after(self, count: int) -> bool:
        """Resume after the first `count` tensors and discard what follows; False where they are not there."""
        self.close()
        if count == len(self._names):
            current, start = len(self._shards), 0
        else:
            current = self._shard_of(self._names[count])
            start = self._shards[current].starts[self._names[count]]
        whole = [(shard.file, shard.end) for shard in self._shards[:current]]
        begun = [] if not start or start == len(self._shards[current].header) else [(self._shards[current].file, start)]
        if not all(file.exists() and file.stat().st_size >= size for file, size in (*whole, *begun)):
            return False
        for shard in self._shards[current + len(begun) :]:
            shard.file.unlink(missing_ok=True)
        for file, size in begun:
            stream = self._stream = file.open("r+b")
            stream.truncate(size)
            stream.seek(size)
        self._next = count
        return True

    def write(self, name: str, pieces: Iterable[torch.Tensor], check: Check = NO_CHECK) -> None:
        """Write the next tensor, as pieces of its elements in order; `check` is called between them, and may raise.

        Raises `NumberTooLarge` for numbers that the dtype it is written in cannot hold.
        """
        assert name == self._names[self._next], f"{name} was to come after {self._names[self._next]}"
        shard = self._shards[self._shard_of(name)]
        if shard.starts[name] == len(shard.header):
            self.to_disk()()
            self.close()
            self._stream = shard.file.open("wb")
            self._stream.write(shard.header)
        assert self._stream is not None, "the shard's first tensor opens it"
        for piece in pieces:
            write_elements(self._stream, narrowed(name, piece, self._dtypes[name]), check)
        self._next += 1
        assert self._stream.tell() == shard.starts[name] + self._bytes[name], f"{name} has another size than planned"

    def to_disk(self) -> Callable[[], None]:
        """Hand over what was written; what is returned waits, in any thread, until it is on the disk."""
        if self._stream is None:
            return lambda: None
        self._stream.flush()
        handle = os.dup(self._stream.fileno())  # a handle of its own, as the next file may be begun meanwhile

        def wait() -> None:
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

        return wait

    def finish(self) -> None:
        """Close the files and, where there are several, write the index."""
        self.to_disk()()
        self.close()
        assert self._next == len(self._names), f"{self._names[self._next]} was never written"
        if len(self._shards) > 1:
            places = {name: shard.file.name for shard in self._shards for name in shard.starts}
            index = {"metadata": {"total_size": self.total_bytes}, "weight_map": dict(sorted(places.items()))}
            path = self._folder / "model.safetensors.index.json"
            path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None

    def _shard_of(self, name: str) -> int:
        return next(number for number, shard in enumerate(self._shards) if name in shard.starts)

    def _shard(self, file: Path, names: list[str], shapes: Mapping[str, tuple[int, ...]]) -> _Shard:
        begin, starts = header({name: (self._dtypes[name], tuple(shapes[name])) for name in names})
        return _Shard(file, begin, starts, starts[names[-1]] + self._bytes[names[-1]])


def _groups(sizes: dict[str, int]) -> list[list[str]]:
    """The names in their order, as many to a file as it may hold."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > MAX_SHARD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"
