"""The tensors of a model as files hold them: each once, in its dtype, zero-padded where a configuration needs it.

Memory holds a model in one dtype; files may hold some tensors in another (`LoadedModel.stored_exceptions`). Where
memory still holds what such a tensor rounds to, it is unchanged and written as the files had it. Everything else is
written in the requested dtype; a number too large for it is an error, never an infinity.
"""

import torch

from transact.errors import NumberTooLarge
from transact.export.padding import is_padded, padded_layer
from transact.layers.weights import origin, with_tensors, without_tied_copies
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.spec.model_spec import ModelSpec


def file_tensors(loaded: LoadedModel, spec: ModelSpec, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors, by their names in the model, at the sizes of `spec`, weights in `dtype`.

    Raises `NumberTooLarge` for numbers that `dtype` cannot hold.
    """
    layout = loaded.layout
    state = {name: tensor.detach() for name, tensor in without_tied_copies(loaded.model.state_dict()).items()}
    if not spec.has_narrow_heads:
        state = {name: tensor for name, tensor in state.items() if not name.endswith(f".{layout.rotary_pairs_buffer}")}
    written = {name: as_stored(loaded, name, tensor, dtype) for name, tensor in state.items()}
    for index, (small, large) in enumerate(zip(loaded.spec.layers, spec.layers, strict=True)):
        if not is_padded(loaded.spec, spec, index):
            continue
        prefix = f"{layout.layers}.{index}."
        exceptions = {
            name.removeprefix(prefix): kept
            for name in loaded.stored_exceptions
            if name.startswith(prefix) and (kept := _unchanged(loaded, name, state[name])) is not None
        }
        layer = with_tensors(loaded.decoder_layers[index], exceptions)
        origins = {origin(name, layout) for name in exceptions}
        for name, tensor in padded_layer(layer, small, large, loaded.spec, spec).items():
            keeps = origin(name, layout) in origins and keeps_dtype(tensor.dtype, dtype, loaded.stored_dtype)
            written[prefix + name] = tensor if keeps else narrowed(prefix + name, tensor, dtype)
    return written


def as_stored(loaded: LoadedModel, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of the model as it is written."""
    kept = _unchanged(loaded, name, tensor)
    if kept is not None and keeps_dtype(kept.dtype, dtype, loaded.stored_dtype):
        return kept
    return narrowed(name, tensor if kept is None else kept, dtype)


def keeps_dtype(kept: torch.dtype, dtype: torch.dtype, stored_dtype: str) -> bool:
    """Whether a tensor that files hold in `kept` beside others in `stored_dtype` stays so where those go to `dtype`."""
    return kept.itemsize > dtype.itemsize or dtype == DTYPES[stored_dtype]


def narrowed(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor in that dtype, whole numbers as they are; raises `NumberTooLarge` where numbers became infinite."""
    if not tensor.is_floating_point():
        return tensor
    cast = tensor.to(dtype)
    limit = torch.finfo(dtype).max
    if limit < torch.finfo(tensor.dtype).max and bool((cast.isinf() & tensor.isfinite()).any()):
        wider = sorted(each for each in DTYPES if torch.finfo(DTYPES[each]).max > limit)[:2]
        raise NumberTooLarge(
            f"{name} holds numbers beyond {limit:g}, the largest of {str(dtype).removeprefix('torch.')}, which would "
            f"become infinite. Choose the dtype {' or '.join(wider)} instead."
        )
    return cast


def _unchanged(loaded: LoadedModel, name: str, tensor: torch.Tensor) -> torch.Tensor | None:
    """A tensor as the files hold it, in a dtype of its own, if memory still holds what it rounds to; else None."""
    kept = loaded.stored_exceptions.get(name)
    if kept is None or kept.shape != tensor.shape:
        return None
    kept = kept.detach().to(tensor.device)
    return kept if torch.equal(kept.to(tensor.dtype), tensor) else None
