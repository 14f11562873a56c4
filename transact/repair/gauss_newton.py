"""A closed-form pass over the whole network: one Gauss-Newton step for all repaired projections together.

Repair module by module minimises errors of the residual stream, in which every direction counts alike. What
counts is the predictions. With p the dense model's next-token distribution, q the pruned one's and
L = Σ KL(p ‖ q) over the calibration text, take for every reading projection W' (`o_proj`, `down_proj`), x its
input and g = ∂L/∂(its output) at a token:

    ΔW' = −(B + β tr(B)/n I)^-1 (Σ_tokens g x^T) (A + α tr(A)/n I)^-1,   A = Σ x x^T,   B = mean of ĝ ĝ^T,

ĝ the gradient for a next token drawn from q itself. A ⊗ B approximates the Gauss-Newton matrix of L in W'
(K-FAC: Martens and Grosse 2015, arXiv 1503.05671), and there is no learning rate: the length of the step, one
number for the whole network, is the one with the lowest loss on every fourth calibration sample, which takes
no part in the gradient; a step that does not lower that loss is not taken. Each block of the approximation
would correct all of the error alone, so the lengths tried lie around one over the number of modules: two fixed
ones, and the vertex of the parabola through the losses there.

Two such steps are taken, the second with the matrices of the first. They need the backward pass, so they are
the costliest part of `"best"`.
"""

import torch

from transact.errors import NonFiniteActivations
from transact.layers.hooks import checking
from transact.layers.slicing import reading_role
from transact.layers.weights import matrix
from transact.models.loaded_model import DTYPES, LoadedModel
from transact.observing.gradients import BlockLosses, Key, drawn_losses, output_gradients, pass_bytes
from transact.progress import Check, Progress, Repeating, part
from transact.repair.dense_predictions import DensePredictions, divergence
from transact.runtime.blockwise_algebra import cholesky, solve
from transact.runtime.random_numbers import random_numbers
from transact.spec.model_spec import ModelSpec
from transact.text.calibration import CalibrationSet
from transact.text.tokens import TokenSet

STEPS = 2
_DAMPING_INPUT = 1e-2
_DAMPING_OUTPUT = 3e-2
_HELD_OUT = 4
"""Every fourth sample is held out to choose the step length."""
_LENGTHS = (0.25, 0.5)
"""Step lengths to try, times one over the number of modules; then the parabola's vertex is tried."""
_MAX_LENGTH = 2.0


def gauss_newton_steps(
    loaded: LoadedModel,
    pruned: LoadedModel,
    calibration: CalibrationSet,
    grams: dict[Key, torch.Tensor],
    progress: Progress,
) -> None:
    """Take the steps on `pruned`, in place. `grams`: X^T X of each reading projection's input, float64; emptied.

    With fewer than four samples none can be held out, and no step is taken. Progress is in tokens.
    """
    rows = list(calibration.rows())
    if len(rows) < _HELD_OUT or not grams:
        return
    held_out = CalibrationSet.from_sequences(rows[::_HELD_OUT], name=calibration.name)
    training_rows = [row for number, row in enumerate(rows) if number % _HELD_OUT]
    training = CalibrationSet.from_sequences(training_rows, name=calibration.name)
    if not held_out.num_predictions or not training.num_predictions:
        return
    watch = Repeating(progress, STEPS * training.num_tokens, "tokens")
    with checking([*loaded.stages, *pruned.stages], watch.check):
        texts = {"training": DensePredictions(loaded, training), "held_out": DensePredictions(loaded, held_out)}
        network = _Network(pruned, grams, watch.check, **texts)
        loss = divergence(pruned, network.held_out)
        for number in range(STEPS):
            loss, improved = network.step(loss, part(watch, number, STEPS))
            if not improved:
                break


def gauss_newton_bytes(spec: ModelSpec, calibration: TokenSet, bytes_per_element: int = 4) -> int:
    """About what `gauss_newton_steps` holds at its peak beside both models; `spec` is the pruned one's.

    For every module: both factors of its block, Σ g x^T or the step, in float64, and its weights before the step; the
    dense model's hidden states, and what the gradients take.
    """
    shapes = [
        (spec.hidden_size, width)
        for layer in spec.layers
        for width in (spec.attention_width(layer), layer.intermediate_size)
    ]
    module_bytes = sum(
        8 * (width**2 + 2 * hidden**2 + 2 * hidden * width) + bytes_per_element * hidden * width
        for hidden, width in shapes
    )
    hidden = calibration.num_tokens * spec.hidden_size * bytes_per_element
    return module_bytes + hidden + pass_bytes(spec, calibration, bytes_per_element)[0]


class _Network:
    """The modules that a step changes, with the factors of the Gauss-Newton matrix's blocks."""

    def __init__(
        self,
        pruned: LoadedModel,
        grams: dict[Key, torch.Tensor],
        check: Check,
        *,
        training: DensePredictions,
        held_out: DensePredictions,
    ):
        self.pruned, self.check, self.training, self.held_out = pruned, check, training, held_out
        self.modules = {
            (index, site): pruned.decoder_layers[index].get_submodule(reading_role(pruned.spec, site))
            for index, site in grams
        }
        self.input_factors = {key: self._damped_factor(grams.pop(key), _DAMPING_INPUT) for key in self.modules}
        self.output_factors: dict[Key, torch.Tensor] = {}

    def step(self, loss: float, progress: Progress) -> tuple[float, bool]:
        """The held-out loss after the step, and whether it was lowered."""
        direction = self._direction(progress)
        start = {key: matrix(module).detach().clone() for key, module in self.modules.items()}

        def loss_at(length: float) -> float:
            self._place(start, direction, length / len(self.modules))
            return divergence(self.pruned, self.held_out)

        losses = {0.0: loss} | {length: loss_at(length) for length in _LENGTHS}
        vertex = _vertex(losses)
        if vertex is not None:
            losses[vertex] = loss_at(vertex)
        best = min(losses, key=lambda length: (losses[length], length))
        self._place(start, direction, best / len(self.modules))
        return losses[best], best > 0

    def _direction(self, progress: Progress) -> dict[Key, torch.Tensor]:
        """ΔW' of the module's docstring, float64 [hidden, channel]; B is that of the first step."""
        sums = _Sums(self.training, self.modules, with_curvature=not self.output_factors)
        output_gradients(self.pruned, self.modules, self.training.tokens, sums.losses, sums.add, progress)
        for (index, site), total in (*sums.products.items(), *sums.curvature.items()):
            if not bool(total.isfinite().all()):
                raise NonFiniteActivations(
                    f"The loss has a gradient that is NaN or infinite in layer {index} ({site}) of the pruned model. "
                    'Prune with compensation="least_squares", or load the model with dtype="float32".'
                )
        for key, total in sums.curvature.items():
            self.output_factors[key] = self._damped_factor(total / sums.tokens, _DAMPING_OUTPUT)
        direction = {}
        for key, products in sums.products.items():
            half = solve(self.output_factors[key], products, self.check)
            direction[key] = solve(self.input_factors[key], half.T, self.check).T.neg_()
        return direction

    def _damped_factor(self, matrix: torch.Tensor, damping: float) -> torch.Tensor:
        """Cholesky factor of matrix + damping · mean diagonal · I; `matrix` is overwritten."""
        size = float(matrix.diagonal().mean())
        matrix.diagonal().add_(damping * size if size > 0 else 1.0)  # without a gradient the step is zero
        return cholesky(matrix, self.check)

    def _place(self, start: dict[Key, torch.Tensor], direction: dict[Key, torch.Tensor], length: float) -> None:
        rounding = DTYPES[self.pruned.stored_dtype]
        with torch.no_grad():
            for key, module in self.modules.items():
                self.check()
                new = start[key] if length == 0 else start[key].double().add(direction[key], alpha=length)
                matrix(module).copy_(new.to(start[key].dtype).to(rounding).to(start[key].dtype))


class _Sums:
    """Σ g x^T and, `with_curvature`, Σ ĝ ĝ^T of every module over the text."""

    def __init__(self, dense: DensePredictions, modules: dict[Key, torch.nn.Linear], *, with_curvature: bool):
        device = dense.loaded.device
        self.dense, self.dense_hidden = dense, iter(dense.hidden)
        self.with_curvature = with_curvature
        self.generator = torch.Generator(device).manual_seed(0)
        self.tokens = 0
        zeros = {"dtype": torch.float64, "device": device}
        self.products = {key: torch.zeros(matrix(module).shape, **zeros) for key, module in modules.items()}
        self.curvature = {
            key: torch.zeros((len(matrix(module)),) * 2, **zeros) for key, module in modules.items() if with_curvature
        }

    def losses(self, targets: torch.Tensor) -> BlockLosses:
        hidden = next(self.dense_hidden)
        self.tokens += len(targets)
        numbers = random_numbers(len(targets), self.dense.loaded.dtype, self.generator) if self.with_curvature else None

        def of_block(own: torch.Tensor, block: slice) -> tuple[torch.Tensor, ...]:
            # −Σ p log q has the gradient of KL(p ‖ q)
            losses = (-(self.dense.log_probabilities(hidden[block]).exp() * own).sum(),)
            return losses if numbers is None else (*losses, *drawn_losses(own, [numbers[block]]))

        return of_block

    def add(self, loss: int, key: Key, inputs: torch.Tensor, gradient: torch.Tensor, real: torch.Tensor) -> None:
        rows = gradient[real]  # [sample, seq, hidden] -> [token, hidden]
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if loss == 0:
            self.products[key] += rows.T @ inputs[real].to(rows.dtype)
        else:
            self.curvature[key] += rows.T @ rows


def _vertex(losses: dict[float, float]) -> float | None:
    """Where the parabola through three points is lowest, at most `_MAX_LENGTH`; None where it has no such place."""
    (x0, y0), (x1, y1), (x2, y2) = sorted(losses.items())
    slope, later = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (later - slope) / (x2 - x0)
    if not 0 < bend < float("inf"):
        return _MAX_LENGTH if y2 < y1 < y0 else None
    lowest = min((x0 + x1) / 2 - slope / (2 * bend), _MAX_LENGTH)
    return lowest if lowest > 0 and lowest not in losses else None
