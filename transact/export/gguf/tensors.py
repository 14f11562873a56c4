"""A model's tensors as a GGUF file stores them: names, order of rows, types. Read one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import gguf
import numpy as np
import torch
from gguf.quants import quant_shape_to_byte_shape, quantize

from transact.errors import SaveRefused
from transact.export.file_tensors import as_stored, narrowed
from transact.export.gguf.architectures import Architecture
from transact.models.loaded_model import LoadedModel

_Type = gguf.GGMLQuantizationType
_FLOAT16_MAX = torch.finfo(torch.float16).max
_FLOAT16_WITHIN = {_Type.F16: _FLOAT16_MAX, _Type.Q8_0: 127 * _FLOAT16_MAX}
"""The largest number of types that have float16 inside; q8_0 keeps the 127th part of a block's largest in it."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of the file: its name there, its type and its values.

    `rotated` is the head_dim of rows that change their order, 0 for rows that keep it.
    """

    name: str
    values: torch.Tensor
    type: gguf.GGMLQuantizationType
    rotated: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def bytes(self) -> int:
        return int(np.prod(quant_shape_to_byte_shape(self.shape, self.type)))

    def falls_back(self, file_type: str) -> bool:
        """Whether a matrix is stored in another type than that of its file."""
        return len(self.shape) > 1 and self.type.name.lower() != file_type

    def stored(self) -> np.ndarray:
        """The bytes as they are stored; raises `SaveRefused` for numbers that float16 cannot hold."""
        values = narrowed(self.name, self.values.detach(), torch.float32).cpu()
        if self.type in _FLOAT16_WITHIN and float(values.abs().max()) > _FLOAT16_WITHIN[self.type]:
            raise SaveRefused(
                f"{self.name} holds numbers that float16 cannot. Choose the file type bf16 or f32 instead."
            )
        if self.type == _Type.BF16:
            narrowed(self.name, values, torch.bfloat16)
        if self.rotated:
            values = _neighbouring(values, self.rotated)
        return quantize(values.contiguous().numpy(), self.type)


def stored_tensors(loaded: LoadedModel, architecture: Architecture, file_type: str) -> Iterator[StoredTensor]:
    """Every tensor of the model for an architecture; a tied output head is left out, as llama.cpp takes the embedding.

    Vectors (norms and biases) stay float32. A matrix whose rows do not fill q8_0's blocks of 32 is stored in float16.
    """
    spec, layout = loaded.spec, loaded.layout
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH(_number(architecture)), spec.num_hidden_layers)
    rotated_roles = (layout.query, layout.key) if architecture.rotates_neighbours else ()
    for name, values in loaded.model.state_dict().items():
        if spec.tie_word_embeddings and name == f"{layout.head}.weight":
            continue
        values = as_stored(loaded, name, values, loaded.dtype)
        module = name.rpartition(".")[0]
        stored_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if stored_name is None:
            raise SaveRefused(f"llama.cpp's {architecture.name} has no place for {name}. Save the checkpoint instead.")
        rotated = spec.head_dim if module.endswith(rotated_roles) else 0
        yield StoredTensor(stored_name, values, _type(values, file_type), rotated)


def _number(architecture: Architecture) -> int:
    return next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture.name)


def _type(values: torch.Tensor, file_type: str) -> gguf.GGMLQuantizationType:
    if values.dim() < 2:
        return _Type.F32
    file_kind = _Type[file_type.upper()]
    block = gguf.GGML_QUANT_SIZES[file_kind][0]
    return file_kind if values.shape[-1] % block == 0 else _Type.F16


def _neighbouring(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of a query or key projection [head · head_dim, ...] with those that RoPE turns together side by side."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])  # [head, half, pair, ...]
    return halves.transpose(1, 2).reshape(rows.shape)
