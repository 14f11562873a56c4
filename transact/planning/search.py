"""What to remove, given that the rest is repaired afterwards.

Channels: layer by layer on the already cut and repaired prefix, those are removed whose absence costs least
*after* the others have been refitted (`transact.repair.ridge.NormalEquations.obs_select`).

Head groups: a few large units a layer, for which the error of the residual stream is a poor criterion; what counts
is the loss. Removing group u alone and refitting `o_proj` moves its output at a token t by −W_u v_t, where with a_t
the transitional activation, A = Σ a a^T + λI and P = A^-1

    v_t = (P_uu)^-1 P_u a_t,    the part of the group's activation that the other groups cannot stand in for.

With ĝ_t the gradient of a sample's loss in that output, for next tokens drawn from the model itself, the loss
rises to second order by

    ½ · mean over samples (Σ_t ĝ_t · W_u v_t)²    (per prediction: divided by the sample's predictions),

the Fisher information of the model in the direction of the change, all tokens of a sample together. The
groups with the lowest of these go. One forward pass and three backward passes serve all groups of all layers.
"""

import numpy as np
import torch

from transact.errors import NonFiniteActivations, NotEnoughMemory
from transact.layers.hooks import hooks_suspended
from transact.layers.weights import matrix
from transact.models import tasks_by_placement
from transact.models.loaded_model import LoadedModel
from transact.models.stock_config import check_writable
from transact.observing.gradients import BlockLosses, Key, drawn_losses, output_gradients, pass_bytes
from transact.observing.observe import gram_bytes, observe
from transact.observing.statistics import ActivationStatistics
from transact.planning.allocation import Units, heads_in_groups, keep_in_each
from transact.planning.make_plan import chosen_layers, kept_inside_heads
from transact.progress import NO_CHECK, NO_PROGRESS, Check, Progress, Repeating, part
from transact.repair.refit_base import calibration_tokens
from transact.repair.ridge import RIDGE, NormalEquations
from transact.repair.sequential import refit, sequential_bytes
from transact.runtime.blockwise_algebra import cholesky, inverse, solve
from transact.runtime.devices import free_bytes
from transact.runtime.random_numbers import random_numbers
from transact.scoring.scores import score
from transact.spec.layer_plan import LayerPlan
from transact.spec.locks import NO_LOCKS, Locks
from transact.spec.model_spec import LayerShape, ModelSpec
from transact.spec.plan import PruningPlan
from transact.spec.target import PruningTarget
from transact.text.calibration import CalibrationSet
from transact.text.tokens import TokenSet

METRIC = "search"
_BATCH = 8
_DRAWS = 3
"""How often next tokens are drawn: each time lowers the noise of the estimate and costs a backward pass."""


@hooks_suspended()
def search_plan(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    target: PruningTarget,
    *,
    locks: Locks | None = None,
    progress: Progress = NO_PROGRESS,
) -> PruningPlan:
    """Our best choice of what to remove for that target; runs the model on the tokens that `statistics` keep.

    Made for `prune(…, compensation="best", statistics=statistics)`. The model is unchanged. Deterministic. What goes
    inside heads, and which layers go, is not searched for but chosen as `make_plan` does by the metric transact.

    Raises `InvalidTarget` for counts that a layer does not have or locks that contradict them, `InvalidPlan` for
    the statistics of another model and as `prune` does, `InvalidOption` for statistics without their tokens (read
    from a file) or, where pairs are to go, observed without `queries=True`, `NotEnoughMemory` before the work and
    `NonFiniteActivations`.
    """
    loaded.check_can(tasks_by_placement.SEARCH)
    shapes, locks = target.per_layer(loaded.spec), locks or NO_LOCKS
    tokens = calibration_tokens(loaded, statistics)
    # equal scores for all: impossible locks are refused before the work, and these stay where all activations are zero
    groups = _groups([np.zeros(shape.num_key_value_heads) for shape in loaded.spec.layers], shapes, locks)
    size, per_group = loaded.spec.group_size, target.heads_per_group(loaded.spec)
    heads = [np.zeros((shape.num_key_value_heads, size)) for shape in loaded.spec.layers]
    channels = _channels([np.zeros(shape.intermediate_size) for shape in loaded.spec.layers], shapes, locks)
    scores = score(loaded, statistics)
    kept_layers = chosen_layers(scores, loaded.spec, target, locks)
    check_writable(loaded, target.spec(loaded.spec), kept_layers)
    kept_inside_heads(scores, loaded.spec, target, groups)  # raises before the work where it cannot choose
    _check_fits(loaded, target, tokens)
    pairs = list(zip(shapes, loaded.spec.layers, strict=True))
    if any(shape.num_key_value_heads < before.num_key_value_heads for shape, before in pairs):
        losses = fisher_losses(loaded, statistics, tokens, size, part(progress, 0, 2))
        groups = _groups([each.numpy() for each in losses], shapes, locks)
    if per_group < size:
        losses = fisher_losses(loaded, statistics, tokens, 1, part(progress, 0, 2))
        heads = [each.numpy().reshape(-1, size) for each in losses]
    attention = [
        LayerPlan(kept, heads_in_groups(values, kept, per_group), kept_channels, *inside)
        for values, kept, kept_channels, inside in zip(
            heads, groups, channels, kept_inside_heads(scores, loaded.spec, target, groups), strict=True
        )
    ]
    if any(shape.intermediate_size < before.intermediate_size for shape, before in pairs):
        selector = _ChannelSearch(attention, locks, kept_layers)
        chosen = refit(loaded, tokens, selector, batch_size=_BATCH, progress=part(progress, 1, 2)).layers
        attention = [chosen.get(index, planned) for index, planned in enumerate(attention)]
    return PruningPlan(
        layers=tuple(attention),
        dense_spec=loaded.spec,
        fingerprint=loaded.fingerprint,
        metric=METRIC,
        calibration=statistics.calibration.name,
        allocation="manual" if target.is_by_layer else "uniform",
        requested=target.requested,
        kept_layers=kept_layers,
    )


def search_bytes(spec: ModelSpec, target: PruningTarget, calibration: TokenSet, bytes_per_element: int = 4) -> int:
    """About what `search_plan` takes at its peak beside the model: its passes for head groups or for channels.

    `bytes_per_element`: of the dtype in memory. Raises `InvalidTarget`.
    """
    pairs = list(zip(target.per_layer(spec), spec.layers, strict=True))
    fewer_groups = any(shape.num_key_value_heads < before.num_key_value_heads for shape, before in pairs)
    by_loss = fewer_groups or target.heads_per_group(spec) < spec.group_size
    needed = 0
    if by_loss and calibration.num_predictions:
        widths = [spec.attention_width(layer) for layer in spec.layers]
        # the Gram matrices, what is made of each, and of the widest its inverse and its factor
        matrices = gram_bytes(spec, ("attention",)) + bytes_per_element * sum(width**2 for width in widths)
        needed = matrices + 8 * 3 * max(widths) ** 2 + pass_bytes(spec, calibration, bytes_per_element)[0]
    if any(shape.intermediate_size < before.intermediate_size for shape, before in pairs):
        refit_bytes = sequential_bytes(spec, calibration.input_ids.numel(), bytes_per_element=bytes_per_element)
        needed = max(needed, refit_bytes)
    return needed


def _check_fits(loaded: LoadedModel, target: PruningTarget, tokens: CalibrationSet) -> None:
    needed, free = search_bytes(loaded.spec, target, tokens, loaded.dtype.itemsize), free_bytes(loaded.device)
    if needed > free:
        raise NotEnoughMemory(
            f"The search with {tokens.num_tokens:,} tokens needs about {needed / 1e9:.1f} GB beside the model and "
            f"{free / 1e9:.1f} GB are free. Give fewer or shorter samples, or plan by a metric."
        )


def _groups(losses: list[np.ndarray], shapes: tuple[LayerShape, ...], locks: Locks) -> list[tuple[int, ...]]:
    """Per layer, the groups that cost most to lose; on a tie the lower index stays."""
    counts = [shape.num_key_value_heads for shape in shapes]
    return keep_in_each(Units(losses, counts, locks.keep_head_groups, locks.remove_head_groups, "head groups"))


def _channels(losses: list[np.ndarray], shapes: tuple[LayerShape, ...], locks: Locks) -> list[tuple[int, ...]]:
    """Per layer, the channels that cost most to lose; on a tie the lower index stays."""
    counts = [shape.intermediate_size for shape in shapes]
    return keep_in_each(Units(losses, counts, locks.keep_channels, locks.remove_channels, "channels"))


class _ChannelSearch:
    """A `UnitSelector` that keeps the heads of `planned` and searches for as many channels as it has.

    The channels of `planned[layer]` are kept where all activations are zero.
    """

    def __init__(self, planned: list[LayerPlan], locks: Locks, kept_layers: tuple[int, ...]):
        self.kept_layers = kept_layers
        self.planned = planned
        self.locks = locks

    def attention(self, layer: int) -> LayerPlan:
        return self.planned[layer]

    def channels(self, layer: int, normal: NormalEquations | None, check: Check) -> tuple[int, ...]:
        if normal is None:
            return self.planned[layer].kept_channels
        staying, going = (
            [channel for at, channel in locked if at == layer]
            for locked in (self.locks.keep_channels, self.locks.remove_channels)
        )
        return normal.obs_select(len(self.planned[layer].kept_channels), staying, going, check)


def fisher_losses(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    tokens: CalibrationSet,
    heads: int,
    progress: Progress = NO_PROGRESS,
) -> tuple[torch.Tensor, ...]:
    """By how much the loss (nats per prediction) rises for each unit removed alone, float64 [unit] per layer.

    A unit has as many heads as `heads` says: those of a group, or one.
    """
    if statistics.attention[0].gram is None:
        statistics = observe(loaded, tokens, gram="attention", progress=part(progress, 0, 2))
        progress = part(progress, 1, 2)
    watch = Repeating(progress, tokens.num_tokens, "tokens")
    spec, layout = loaded.spec, loaded.layout
    width = heads * spec.value_dim
    modules, innovations = {}, {}
    for index, (layer, moments) in enumerate(zip(loaded.decoder_layers, statistics.attention, strict=True)):
        modules[index, "attention"] = layer.get_submodule(layout.output)
        assert moments.gram is not None, "observed above where it was missing"
        gram = moments.gram.to(loaded.device)
        innovations[index, "attention"] = _schur_projection(gram, width, watch.check).to(loaded.dtype)
    sums = [torch.zeros(shape.num_attention_heads // heads, dtype=torch.float64) for shape in spec.layers]

    generator = torch.Generator(loaded.device).manual_seed(0)

    def losses(targets: torch.Tensor) -> BlockLosses:
        numbers = [random_numbers(len(targets), loaded.dtype, generator) for _ in range(_DRAWS)]
        return lambda own, block: drawn_losses(own, [each[block] for each in numbers])

    def add(loss: int, key: Key, inputs: torch.Tensor, gradient: torch.Tensor, real: torch.Tensor) -> None:
        changes = (gradient @ matrix(modules[key]).detach()) * (inputs @ innovations[key].T)
        changes = changes.masked_fill(~real[..., None], 0)
        # [sample, seq, unit · width] -> [sample, unit]
        sample_sums = changes.unflatten(-1, (-1, width)).sum(dim=(1, 3), dtype=torch.float64)
        sums[key[0]] += sample_sums.square().sum(dim=0).cpu() / 2

    output_gradients(loaded, modules, tokens, losses, add, watch)
    result = tuple(each / (_DRAWS * max(tokens.num_predictions, 1)) for each in sums)
    if not all(bool(each.isfinite().all()) for each in result):
        raise NonFiniteActivations(
            "The loss has a gradient that is NaN or infinite on this text. The weights may be damaged; if not, load "
            'the model with dtype="float32".'
        )
    return result


def _schur_projection(gram: torch.Tensor, width: int, check: Check = NO_CHECK) -> torch.Tensor:
    """K with v = K a of the module's docstring: (P_uu)^-1 P_u for every unit u of `width` channels, stacked."""
    damped = gram.clone()
    size = float(gram.diagonal().mean())
    damped.diagonal().add_(RIDGE * size if size else 1.0)
    inverted = inverse(cholesky(damped, check), check)
    rows = [
        solve(torch.linalg.cholesky(block[:, start : start + width]), block, check)
        for start, block in zip(range(0, len(gram), width), inverted.split(width), strict=True)
    ]
    return torch.cat(rows)
