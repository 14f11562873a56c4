"""A checkpoint's safetensors files, written piece by piece, so that writing can be cancelled at any point.

Format of a file: 8 bytes with the header's length, the header as JSON (name -> dtype, shape, place), the tensors'
bytes. Source: the format's own description in the README of `safetensors`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards

from transact.progress import NO_CHECK, NO_PROGRESS, Check, Progress, Repeating

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
}  # fmt: skip
"""The format's names of the dtypes of weights, and of the indices that narrower heads have."""
_ALIGNMENT = 8
_PIECE_ELEMENTS = 1 << 24


def write_tensors(tensors: Mapping[str, torch.Tensor], folder: Path, progress: Progress = NO_PROGRESS) -> None:
    """Write `model.safetensors` into `folder`, or several files of at most 5 GB with the index that goes with them.

    Progress is in bytes. Raises `OSError` where the disk refuses, and whatever the progress raises.
    """
    total = sum(tensor.nbytes for tensor in tensors.values())
    watch = Repeating(progress, total, "bytes")
    done = 0
    split = split_torch_state_dict_into_shards(dict(tensors))
    for name, held in split.filename_to_tensors.items():
        # wider elements first, so that all are aligned
        order = sorted(held, key=lambda each: -tensors[each].dtype.itemsize)
        begin, _ = header({each: (tensors[each].dtype, tuple(tensors[each].shape)) for each in order})
        with (folder / name).open("wb") as stream:
            stream.write(begin)
            for each in order:
                write_elements(stream, tensors[each], watch.check)
                done += tensors[each].nbytes
                watch(done, total, "bytes")
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def header(entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> tuple[bytes, dict[str, int]]:
    """The beginning of a file with these tensors in their order, and where in the file each one's bytes begin."""
    described: dict = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, (dtype, shape) in entries.items():
        starts[name] = end
        end += dtype.itemsize * torch.Size(shape).numel()
        described[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)  # so that the first tensor is aligned
    begin = len(text).to_bytes(8, "little") + text
    return begin, {name: len(begin) + start for name, start in starts.items()}


def write_elements(stream, tensor: torch.Tensor, check: Check = NO_CHECK) -> None:
    """The bytes of a tensor, in pieces."""
    for piece in tensor.detach().reshape(-1).split(_PIECE_ELEMENTS):
        check()
        stream.write(memoryview(piece.cpu().contiguous().view(torch.uint8).numpy()))
