"""Weight times gradient: to first order, how far the loss would move if a weight were zero.

With L the mean next-token loss of one batch b and g_b = ∂L/∂W for a projection's weight W [out, in], a projection
gives each of its rows (or columns) j

    t_j = Σ_b Σ_i |W_ji · g_b,ji|.

A channel of `o_proj`'s input scores t of its row of the query projection, of its column of the output projection,
and its share of the rows of key and value: those belong to all heads of a group, so each head takes 1 / group_size
of them, and the sum over a group counts them once. An MLP channel scores t of its rows of gate and up and of its
column of down.

Source: `TaylorScorer` in the TransAct authors' `pruning/scorer.py`, after LLM-Pruner (Ma et al. 2023, arXiv
2305.11627). Of its absolute values ours takes the same two: |gradient| is summed over the batches, not the signed
gradient (which would let batches cancel), and |weight · gradient| over the weights of a unit. As there, biases do not
count. Unlike the authors' loop, which never clears `.grad` between batches and so sums up absolute values of running
sums, each batch's own gradient counts here; for a single batch the two are equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from transact.errors import InvalidOption, InvalidText, NonFiniteActivations, NotEnoughMemory
from transact.layers.slicing import written_rows
from transact.layers.weights import matrix
from transact.models.loaded_model import LoadedModel
from transact.models.tasks_by_placement import GRADIENTS
from transact.observing.gradients import BlockLosses, Key, output_gradients, pass_bytes
from transact.progress import Progress
from transact.runtime.devices import free_bytes
from transact.runtime.distributed import add_up
from transact.spec.model_spec import SITES, ModelSpec
from transact.text.calibration import CalibrationSet


@dataclass(frozen=True, eq=False)
class LayerProducts:
    """t of the module's docstring for one layer, float64: `attention` [head · value_dim], `mlp` [channel]."""

    attention: torch.Tensor
    mlp: torch.Tensor


def gradient_products(
    loaded: LoadedModel, calibration: CalibrationSet, *, batch_size: int, progress: Progress
) -> tuple[LayerProducts, ...]:
    """One forward and backward pass over the calibration text, layer by layer.

    A weight's gradient is formed from the gradient of its projection's output, reduced and dropped, one projection
    at a time, so that no parameter's `requires_grad` or `grad` is ever touched. Padding predicts nothing and is not
    predicted. Batches are those of `batch_size`, or smaller where the vocabulary is large. Progress is in tokens.

    Raises `InvalidOption` for narrower heads, `InvalidText` where there is nothing to predict, `NotEnoughMemory`
    before the pass, and `NonFiniteActivations`, naming the layer.
    """
    loaded.check_can(GRADIENTS)
    if loaded.spec.has_narrow_heads:
        raise InvalidOption(
            "Taylor scores count a row of the query projection with the same row of value, and the heads of this model "
            "have lost rows of each on their own. Observe with taylor=False."
        )
    if calibration.num_predictions < 1:
        raise InvalidText("The text is too short for a gradient: every sample has a single token. Give more.")
    _check_fits(loaded, *pass_bytes(loaded.spec, calibration, loaded.dtype.itemsize, batch_size=batch_size))
    zeros = partial(torch.zeros, dtype=torch.float64, device=loaded.device)
    result = tuple(
        LayerProducts(zeros(loaded.spec.attention_width(layer)), zeros(layer.intermediate_size))
        for layer in loaded.spec.layers
    )
    modules = {
        (index, role): layer.get_submodule(role)
        for index, layer in enumerate(loaded.decoder_layers)
        for role in loaded.layout.projections
    }

    def losses(targets: torch.Tensor) -> BlockLosses:
        return lambda own, block: (-own.gather(1, targets[block, None]).sum() / len(targets),)

    add = _adder(loaded.spec, modules, result)
    output_gradients(loaded, modules, calibration, losses, add, progress, batch_size=batch_size, shared=True)
    for layer in result:
        add_up(layer.attention, layer.mlp)
    progress(calibration.num_tokens, calibration.num_tokens, "tokens")  # samples of a single token were left out
    _check_finite(loaded, result)
    return tuple(LayerProducts(layer.attention.cpu(), layer.mlp.cpu()) for layer in result)


def _check_fits(loaded: LoadedModel, needed: int, num_positions: int) -> None:
    free = free_bytes(loaded.device)
    if needed > free:
        raise NotEnoughMemory(
            f"The backward pass over a batch of {num_positions:,} tokens needs about {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free. Observe with a smaller batch_size, shorter samples, or taylor=False."
        )


def _adder(
    spec: ModelSpec, modules: dict[Key, torch.nn.Module], result: tuple[LayerProducts, ...]
) -> Callable[[int, Key, torch.Tensor, torch.Tensor, torch.Tensor], None]:
    """Adds a projection's products to those of its layer during the backward pass."""
    layout = spec.layout
    read_at = {layout.output: "attention", layout.down: "mlp"}
    written = [[(site, rows) for site in SITES for rows in written_rows(spec, shape, site)] for shape in spec.layers]

    def add(loss: int, key: Key, inputs: torch.Tensor, gradient: torch.Tensor, real: torch.Tensor) -> None:
        layer, role = key
        # [sample, seq, out], [sample, seq, in] -> [out, in], the gradient of the weight; that of padding is 0
        of_weight = gradient.flatten(0, -2).T @ inputs.flatten(0, -2)
        products = of_weight.mul_(matrix(modules[key]).detach()).abs_()
        if role in read_at:
            getattr(result[layer], read_at[role]).add_(products.sum(dim=0, dtype=torch.float64))
            return
        products = products.sum(dim=1, dtype=torch.float64)
        for site, rows in written[layer]:
            if rows.module == role:
                own = products[rows.rows.to(products.device)]
                getattr(result[layer], site).add_(_shared(own, spec) if rows.role in ("key", "value") else own)

    return add


def _shared(products: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """[group · head_dim] -> [head · head_dim], each head of a group its part."""
    heads = products.unflatten(0, (-1, spec.head_dim)).repeat_interleave(spec.group_size, dim=0)
    return heads.flatten() / spec.group_size


def _check_finite(loaded: LoadedModel, result: tuple[LayerProducts, ...]) -> None:
    for index, layer in enumerate(result):
        for name, products in (("attention", layer.attention), ("MLP", layer.mlp)):
            if not bool(products.isfinite().all()):
                raise NonFiniteActivations(
                    f"Layer {index} produced NaN or infinite {name} gradients in {loaded.dtype}. "
                    'The weights may be damaged; if not, load the model with dtype="float32".'
                )
