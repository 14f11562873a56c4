"""Cutting and repairing module by module, each on what the already cut prefix really computes.

For one module let h and h' be the residual stream before it, dense and pruned, h⁺ the dense stream after it,
X' its transitional activation on h' with every channel still there, W and b its reading projection. The new
weights W' for the kept channels S minimise ‖Y − X'_S W'^T‖² + λ‖W' − W_S‖² with

    Y = X' W^T + ½ ((h⁺ − h') / r − b − X' W^T),    r = the family's residual multiplier (mostly 1):

the module's own output, moved half-way towards the one that undoes the error accumulated by the prefix. Where a norm
stands between the module and the residual stream (Gemma, OLMo 2), the dense module's own output stands in for
(h⁺ − h') / r. Moving all the way overshoots, as the error on the calibration text is not that on new text; not moving
lets errors grow (measured). The sums are taken in the activations' precision, solved in float64, and the next module
sees the rounded weights. A module that loses nothing itself is refitted too. The pruned stream passes by a layer that
goes whole, and the modules behind make up for it.
"""

import copy
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from transact.errors import NotEnoughMemory
from transact.layers.hooks import checking, on_calls, on_inputs
from transact.layers.masks import joint_norms, removed_pairs
from transact.layers.slicing import (
    NewProjection,
    kept_input_indices,
    reading_projection,
    reading_role,
    writing_projections,
)
from transact.layers.weights import matrix
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.observing.layer_stream import HiddenStream, NoAttention, output_watched, streams
from transact.observing.observe import gram_bytes
from transact.progress import Check, Progress, Repeating
from transact.repair.ridge import NormalEquations
from transact.runtime.blockwise_algebra import add_gram, add_product, add_products, part_of
from transact.runtime.devices import free_bytes
from transact.spec.family import is_on
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import SITES, ModelSpec
from transact.text.calibration import CalibrationSet

_FEEDBACK = 0.5
"""How far the target is moved towards the dense residual stream."""


class UnitSelector(Protocol):
    """Decides what a layer keeps: of attention (channels in that plan are ignored), and of its channels.

    The channels are chosen once the module's sums are known; `check` is called meanwhile. Neither is asked for layers
    that are none of `kept_layers`.
    """

    @property
    def kept_layers(self) -> tuple[int, ...]: ...

    def attention(self, layer: int) -> LayerPlan: ...

    def channels(self, layer: int, normal: NormalEquations | None, check: Check) -> tuple[int, ...]: ...


@dataclass(frozen=True, eq=False)
class Refitted:
    """The result of `refit`: what each layer that stays keeps, by its index, and the new projections by the `id` of
    those that they replace.

    `grams[layer, site]`: X^T X + λI of the kept channels, float64, where `grams_of` was given and anything was cut;
    layers are numbered as after the cut.
    """

    layers: dict[int, LayerPlan]
    projections: dict[int, torch.nn.Module]
    grams: dict[tuple[int, str], torch.Tensor]


def sequential_bytes(
    spec: ModelSpec, num_tokens: int, *, grams_of: ModelSpec | None = None, bytes_per_element: int = 4
) -> int:
    """About what `refit` holds at its peak beside the model and its copy.

    Both residual streams before and after a module, the widest transitional activation, its sums and their
    factors in float64, and the Gram matrices that are kept.
    """
    widest = max(max(spec.attention_width(layer), layer.intermediate_size) for layer in spec.layers)
    streamed = num_tokens * (5 * spec.hidden_size + widest) * bytes_per_element
    held = 0 if grams_of is None else gram_bytes(grams_of)
    return streamed + 8 * (3 * widest**2 + 3 * spec.hidden_size * widest) + held


def refit(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    selector: UnitSelector,
    *,
    grams_of: ModelSpec | None = None,
    batch_size: int,
    progress: Progress,
) -> Refitted:
    """Refit layer by layer as the module's docstring says. Progress is in layers, cancellation checked within each.

    `grams_of`: the shape after the cut, where the Gram matrices of the kept channels are to be returned too.

    Raises `NotEnoughMemory` before it starts and `NonFiniteActivations`.
    """
    needed = sequential_bytes(
        loaded.spec, calibration.input_ids.numel(), grams_of=grams_of, bytes_per_element=loaded.dtype.itemsize
    )
    free = free_bytes(loaded.device)
    if needed > free:
        raise NotEnoughMemory(
            f"Going through this model layer by layer with {calibration.num_tokens:,} tokens needs about "
            f"{needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. Give fewer or shorter samples, or use "
            'compensation="least_squares".'
        )
    layers: dict[int, LayerPlan] = {}
    projections: dict[int, torch.nn.Module] = {}
    grams: dict[tuple[int, str], torch.Tensor] = {}
    count = loaded.spec.num_hidden_layers
    watch = Repeating(progress, count, "layers")
    with torch.no_grad(), checking(loaded.decoder_layers, watch.check):
        sequential = _SequentialPass(loaded, calibration, selector, grams_of is not None, batch_size, watch.check)
        for index in range(count):
            watch(index, count, "layers")
            if index not in selector.kept_layers:
                sequential.pass_by(index)
                continue
            kept, new = sequential.layer(index)
            grams |= {(len(layers), site): gram for site, gram in sequential.grams.items()}
            layers[index] = kept
            projections |= new
        watch(count, count, "layers")
    return Refitted(layers, projections, grams if sequential.changed else {})


class _SequentialPass:
    """The text before one layer, in the dense model and in the pruned one."""

    def __init__(
        self,
        loaded: LoadedModel,
        calibration: CalibrationSet,
        selector: UnitSelector,
        keep_grams: bool,
        size: int,
        check: Check,
    ):
        self.check = check
        self.loaded = loaded
        self.selector = selector
        self.keep_grams = keep_grams
        self.changed = False
        self.grams: dict[str, torch.Tensor] = {}
        self.pruned = streams(loaded, calibration, size)
        self.dense = [HiddenStream(stream.hidden, stream.real, stream.arguments) for stream in self.pruned]
        self.rounding = DTYPES[loaded.stored_dtype]
        config, layout = loaded.model.config, loaded.layout
        scale = layout.residual_multiplier
        self.scale = 1.0 if scale is None else float(getattr(config, scale))
        self.parallel = is_on(layout.parallel, config)

    def pass_by(self, index: int) -> None:
        """For a layer that goes whole: only the dense text passes through it."""
        self._advance_dense(self.loaded.decoder_layers[index], index)
        self.changed = True

    def layer(self, index: int) -> tuple[LayerPlan, dict[int, torch.nn.Module]]:
        layer, spec, layout = self.loaded.decoder_layers[index], self.loaded.spec, self.loaded.layout
        shape = spec.layers[index]
        self.grams = {}
        targets = self._advance_dense(layer, index)

        inputs = [stream.input_of(layout.output, layer, index) for stream in self.pruned]
        normal = self._normal(layer, "attention", inputs, targets["attention"])
        all_channels = tuple(range(shape.intermediate_size))
        kept = replace(self.selector.attention(index), kept_channels=all_channels)
        norms, pairs = joint_norms(layer, kept, shape, spec), removed_pairs(layer, kept, shape, spec)
        if norms or pairs:  # what attention computes changes with the heads, or the pairs, that are left
            with on_inputs(norms), on_calls(pairs):
                inputs = [stream.input_of(layout.output, layer, index) for stream in self.pruned]
            normal = self._normal(layer, "attention", inputs, targets["attention"])
        new = self._reading(layer, kept, "attention", normal)
        before = [stream.hidden for stream in self.pruned]
        self._add_module(layer, new, kept, "attention", inputs)
        del normal, inputs

        # with its attention replaced, the layer's own code computes the MLP alone
        rest = copy.copy(layer)
        rest._modules = dict(layer._modules) | {layout.attention: NoAttention()}
        after = [stream.hidden for stream in self.pruned]
        if self.parallel:  # the MLP reads what attention read
            self._set_pruned(before)
        inputs = [stream.input_of(layout.down, rest, index) for stream in self.pruned]
        self._set_pruned(after)
        normal = self._normal(layer, "mlp", inputs, targets["mlp"])
        kept = replace(kept, kept_channels=self.selector.channels(index, normal, self.check))
        mlp = self._reading(layer, kept, "mlp", normal)
        self._add_module(layer, mlp, kept, "mlp", inputs)
        new |= mlp
        for site in SITES:
            new |= writing_projections(layer, shape, kept, spec, site)
        return kept, new

    def _set_pruned(self, hidden: list[torch.Tensor]) -> None:
        for stream, each in zip(self.pruned, hidden, strict=True):
            stream.hidden = each

    def _add_module(
        self,
        layer: torch.nn.Module,
        reading: dict[int, torch.nn.Module],
        kept: LayerPlan,
        site: str,
        inputs: list[torch.Tensor],
    ) -> None:
        """Add to the pruned streams the output of a module that reads what is left of its transitional activation."""
        (projection,) = reading.values()
        norm = self._norm(layer, site)
        positions = kept_input_indices(kept, self.loaded.spec, site, self.loaded.device)
        for stream, activations in zip(self.pruned, inputs, strict=True):
            self.check()
            stream.hidden = stream.hidden + self.scale * norm(projection(activations[..., positions]))

    def _norm(self, layer: torch.nn.Module, site: str) -> torch.nn.Module:
        """The norm between a module and the residual stream."""
        path = self._post_norms[site]
        return torch.nn.Identity() if path is None else layer.get_submodule(path)

    @property
    def _post_norms(self) -> dict[str, str | None]:
        return {"attention": self.loaded.layout.post_attention, "mlp": self.loaded.layout.post_mlp}

    def _advance_dense(self, layer: torch.nn.Module, index: int) -> dict[str, list[torch.Tensor]]:
        """Run the dense streams through the layer; per site, the target of each batch.

        That is the dense stream after the module, h⁺, or, where a norm stands between the two, the module's output.
        """
        layout = self.loaded.layout
        targets: dict[str, list[torch.Tensor]] = {"attention": [], "mlp": []}
        for stream in self.dense:
            with output_watched(layer, layout.output) as attended, output_watched(layer, layout.down) as activated:
                after = stream.run(layer, index)
            middle = stream.hidden + self.scale * attended[0]
            targets["attention"].append(middle if layout.post_attention is None else attended[0])
            targets["mlp"].append(after if layout.post_mlp is None else activated[0])
            stream.hidden = after
        return targets

    def _normal(
        self, layer: torch.nn.Module, site: str, inputs: list[torch.Tensor], targets: list[torch.Tensor]
    ) -> NormalEquations | None:
        """The regression of Y on the transitional activations `inputs`; `targets` as `_advance_dense` returns them."""
        projection = layer.get_submodule(reading_role(self.loaded.spec, site))
        weight = matrix(projection)
        hidden, channels = weight.shape
        gram = torch.zeros(channels, channels, dtype=torch.float64, device=weight.device)
        error_products = torch.zeros(hidden, channels, dtype=torch.float64, device=weight.device)
        for stream, activations, dense in zip(self.pruned, inputs, targets, strict=True):
            rows = stream.counted(activations)
            normed = self._post_norms[site] is not None
            error = stream.counted(dense if normed else (dense - stream.hidden) / self.scale)
            if projection.bias is not None:
                error = error - projection.bias  # not in place: `error` may be a view of `dense`
            add_gram(gram, rows, self.check)
            add_products(error_products, error, rows, self.check)
        products = add_product(error_products.mul_(_FEEDBACK), weight.double(), gram, self.check, scale=1 - _FEEDBACK)
        return NormalEquations.of(gram, products, weight)

    def _reading(
        self, layer: torch.nn.Module, kept: LayerPlan, site: str, normal: NormalEquations | None
    ) -> dict[int, torch.nn.Module]:
        positions = kept_input_indices(kept, self.loaded.spec, site, self.loaded.device)
        old = layer.get_submodule(reading_role(self.loaded.spec, site))
        weight = matrix(old)
        new = weight[:, positions]
        self.changed |= len(positions) < weight.shape[1]
        if normal is not None and self.changed:  # before the first cut there is nothing to make up for
            new = normal.solved(positions, self.check).to(weight.dtype).to(self.rounding).to(weight.dtype)
        if normal is not None and self.keep_grams:
            self.grams[site] = part_of(normal.inner, positions, self.check)
        return reading_projection(old, NewProjection(new, old.bias))
