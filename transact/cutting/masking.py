"""The plan as a reversible mask: what would be cut is set to zero on its way into `o_proj` and `down_proj`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from transact.errors import whole_number
from transact.layers.hooks import CallFunction, InputFunction, on_calls, on_inputs
from transact.layers.masks import joint_norms, pass_on, removed_pairs, set_to_zero
from transact.layers.slicing import kept_input_indices, reading_role
from transact.models.loaded_model import LoadedModel
from transact.spec.model_spec import SITES
from transact.spec.plan import PruningPlan


@contextmanager
def masked(loaded: LoadedModel, plan: PruningPlan) -> Iterator[LoadedModel]:
    """Let `loaded` compute what the pruned model would, without cutting; undone however the block ends.

    A removed head or channel feeds zeros to the projection that reads it, which is exactly its absence; a removed RoPE
    pair is zero in the queries; a removed layer passes the residual stream on as it came. Where queries and keys are
    normed over all heads together (OLMo 2), they are normed over the kept ones. Only forward passes of the calling
    thread are masked. Raises `InvalidPlan` for the plan of another model.
    """
    plan.check_fits(loaded.fingerprint)
    spec = loaded.spec
    functions: list[tuple[torch.nn.Module, InputFunction]] = []
    calls: list[tuple[torch.nn.Module, CallFunction]] = []
    for index, layer in enumerate(loaded.decoder_layers):
        kept, shape = plan.kept_layer_plans.get(index), spec.layers[index]
        if kept is None:
            calls.append((layer, pass_on))
            continue
        for site, width in zip(SITES, (spec.attention_width(shape), shape.intermediate_size), strict=True):
            removed = torch.ones(width, dtype=torch.bool)
            removed[kept_input_indices(kept, spec, site)] = False
            if removed.any():
                functions.append((layer.get_submodule(reading_role(spec, site)), set_to_zero(removed)))
        functions += joint_norms(layer, kept, shape, spec)
        calls += removed_pairs(layer, kept, shape, spec)
    with on_inputs(functions), on_calls(calls):
        yield loaded


@contextmanager
def knocked_out(
    loaded: LoadedModel, layer: int, *, heads: Sequence[int] = (), channels: Sequence[int] = ()
) -> Iterator[LoadedModel]:
    """Let `loaded` compute as if those query heads and MLP channels of one layer were not there; else as `masked`.

    For looking at what a unit does: heads of a group need not go together here. Raises `InvalidOption` for a layer or a
    unit that the model does not have.
    """
    spec = loaded.spec
    layer = whole_number(layer, "layer", most=spec.num_hidden_layers - 1)
    shape, functions = spec.layers[layer], []
    for site, name, units, count, width in (
        ("attention", "head", heads, shape.num_attention_heads, spec.value_dim),
        ("mlp", "channel", channels, shape.intermediate_size, 1),
    ):
        removed = torch.zeros(count, dtype=torch.bool)
        removed[[whole_number(unit, name, most=count - 1) for unit in units]] = True
        if units:
            module = loaded.decoder_layers[layer].get_submodule(reading_role(spec, site))
            functions.append((module, set_to_zero(removed.repeat_interleave(width))))
    with on_inputs(functions):
        yield loaded
