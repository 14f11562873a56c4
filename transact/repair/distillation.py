"""The pruned model taught by the dense one: small steps over all of its layers, for some steps or some seconds.

With p the dense model's next-token distribution and q the pruned one's, each step lowers the mean of KL(p ‖ q) over
some of the calibration text (Hinton et al. 2015, arXiv 1503.02531) by AdamW, at a rate that rises over the first steps
and then falls towards zero in a straight line. The rate of a tensor is in proportion to the root mean square of its
elements, so that one setting does for models whose weights differ tenfold in size. Embeddings, the last norm and the
output head stay as they are, so that their gradients, a third of the work where the vocabulary is large, are not
computed. The dense model reads each text once: what its output head reads is kept.

Some of the text is held back, and the weights of the least KL on it stay, those before the first step among them: a
result is never worse there than what it began with.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from transact.layers.hooks import checking
from transact.layers.weights import cast_parameters
from transact.models.chunked_logits import Head, log_probabilities, output_head, summed_loss, without_decoder
from transact.models.loaded_model import DTYPES, Batch, LoadedModel
from transact.observing.gradients import backward_bytes
from transact.observing.observe import FinalStates
from transact.progress import NO_PROGRESS, Progress, Repeating, StoppedEarly
from transact.repair.dense_predictions import DensePredictions, divergence, predicting_hidden
from transact.runtime.devices import seconds_at
from transact.spec.model_spec import ModelSpec
from transact.text.calibration import CalibrationSet, evenly_spread
from transact.text.tokens import TokenSet

LEARNING_RATE = 1.5e-3
"""Of a tensor's root mean square, at most in a step."""
STEP_TOKENS = 512
"""Text of one step; a longer sample is a step of its own."""
_WARM_UP = 8
_BETAS = (0.9, 0.95)
_LARGEST_GRADIENT = 1.0
_HELD_BACK = 8
"""Every so many samples one is held back."""
MEASURED_TOKENS = 4_096
_MEASURED_EVERY = 64
"""Steps after which the held-back text is measured, beside the end."""
_WHOLE_STEP = 1.2
"""A step beside its gradient."""
_LATE = 1.1
"""Of the seconds given: it ends there, whatever was planned."""
_STATE_BYTES = 4 * (1 + 2 + 1)
"""A trained parameter's gradient, two moments and the best value so far."""


@dataclass(frozen=True)
class Distilled:
    """The weights are those after `steps` of `planned` steps; mean KL(dense ‖ pruned) on held-back text, nats, `before`
    and `after`.

    The same again: `distill(…, steps=planned, only=steps)`.
    """

    steps: int
    planned: int
    before: float
    after: float


def distill(
    dense: LoadedModel,
    pruned: LoadedModel,
    calibration: CalibrationSet,
    *,
    steps: int | None = None,
    only: int | None = None,
    seconds: float | None = None,
    predictions: DensePredictions | None = None,
    states: FinalStates | None = None,
    progress: Progress = NO_PROGRESS,
) -> Distilled:
    """Train `pruned`, in place, for so many steps, or for as many as the first one says that the seconds have room for.

    `only`: of the steps the first so many, at the rates that all of them would have. `predictions`: the dense model's
    on the text that `held_back` names; `states`: its own of samples to learn from. Where there are none, they are made
    here. With fewer than two samples none can be held back, and no step is taken. Progress is in steps; where it raises
    `StoppedEarly`, the best weights that were measured are the result. After any other exception the weights are those
    of the moment.
    """
    split = held_back(calibration)
    if split is None:
        return Distilled(0, 0, float("inf"), float("inf"))
    text, measured = split
    began, dtype = seconds_at(pruned.device), pruned.dtype
    watch = Repeating(progress, steps or 1, "steps")
    pruned.model.requires_grad_(False)
    cast_parameters(pruned.model, torch.promote_types(dtype, torch.float32))  # half precision loses small steps
    pruned.decoder_layers.requires_grad_(True)
    with torch.inference_mode(False), checking([*dense.stages, *pruned.stages], watch.check):
        lesson = _Lesson(dense, pruned, text, predictions or DensePredictions(dense, measured), states or {})
        left = None if seconds is None else seconds - (seconds_at(pruned.device) - began)
        result = lesson.run(steps, only, left, watch)
    pruned.model.requires_grad_(True)
    cast_parameters(pruned.model, dtype)
    return result


def held_back(calibration: CalibrationSet) -> tuple[CalibrationSet, CalibrationSet] | None:
    """The text to learn from and some to measure on, every eighth sample; None where one of them would be empty.

    Samples that predict nothing are left out.
    """
    rows = [row for row in calibration.rows() if len(row) > 1]
    if len(rows) < 2:
        return None
    measured = CalibrationSet.from_sequences(rows[::_HELD_BACK], name=calibration.name)
    learned = [row for number, row in enumerate(rows) if number % _HELD_BACK]
    return CalibrationSet.from_sequences(learned, name=calibration.name), evenly_spread(measured, MEASURED_TOKENS)


def distillation_bytes(spec: ModelSpec, calibration: TokenSet) -> int:
    """About what `distill` holds at its peak beside both models; `spec` is the pruned one's."""
    trained = sum(spec.layer_parameters(layer) for layer in spec.layers)
    width = max(STEP_TOKENS, max(calibration.lengths))
    return _STATE_BYTES * trained + 4 * calibration.num_tokens * spec.hidden_size + backward_bytes(spec, width)


class _Lesson:
    """One distillation. `held_back`: what the dense model predicts on the text that decides which weights stay."""

    def __init__(
        self, dense: LoadedModel, pruned: LoadedModel, text: CalibrationSet, held_back: DensePredictions,
        states: FinalStates,
    ):  # fmt: skip
        self.dense, self.pruned, self.held_back = dense, pruned, held_back
        self.batches = _batches(text)
        self.ids = list(text.rows())
        self.states = states
        self.dense_hidden: dict[int, torch.Tensor] = {}
        self.dense_head = output_head(dense)
        self.head_model = without_decoder(pruned.model, pruned.layout)
        self.parameters = list(pruned.decoder_layers.parameters())
        self.peak_rates = [LEARNING_RATE * float(each.detach().square().mean().sqrt()) for each in self.parameters]
        groups = [{"params": [parameter]} for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(groups, betas=_BETAS, weight_decay=0.0)
        self.done, self.planned, self.kept = 0, 0, 0
        self.before = self.least = float("inf")
        self.best = [parameter.detach().clone() for parameter in self.parameters]

    def run(self, steps: int | None, only: int | None, seconds: float | None, watch: Repeating) -> Distilled:
        with suppress(StoppedEarly):
            self._take_steps(steps, only, seconds, watch)
        self._restore()
        return Distilled(self.kept, self.planned, self.before, self.least)

    def _take_steps(self, steps: int | None, only: int | None, seconds: float | None, watch: Repeating) -> None:
        began = self._now()
        self.before = self.least = self._measure()
        measuring = self._now() - began
        first = self._now()

        def affordable(of_step: float) -> int:
            """How many steps there is time for, with the measurements on the way."""
            assert seconds is not None, "either steps or seconds are given"
            left = seconds - (self._now() - began) - measuring
            return max(0, int(left / (of_step + measuring / _MEASURED_EVERY)))

        order = _endlessly(len(self.batches))
        self._add_gradient(next(order))
        self.planned = affordable(_WHOLE_STEP * (self._now() - first)) if steps is None else steps
        while self.done < (last := self.planned if only is None else min(only, self.planned)):
            if self.done:
                self._add_gradient(next(order))
            self.done += 1
            self._step(self.done, self.planned)
            if steps is None and self.done == _WARM_UP:  # the first step of all takes longer than the others
                self.planned = last = self.done + affordable((self._now() - first) / self.done)
            watch(self.done, last, "steps")
            if self.done == last or self.done % _MEASURED_EVERY == 0:
                self._keep_if_better()
            if seconds is not None and self._now() - began > _LATE * seconds:
                self._keep_if_better()
                break

    def _add_gradient(self, number: int) -> None:
        """Of the mean KL over one batch."""
        batch = self.batches[number]
        rows = batch.predicting.to(self.pruned.device)
        dense_hidden = self._dense_hidden(number, rows)
        with torch.enable_grad():
            hidden = predicting_hidden(self.pruned, batch, rows)
            loss = partial(_divergence, self.dense_head, dense_hidden)
            total = summed_loss(self.head_model, hidden, self.pruned.spec.vocab_size, loss)
            (total / len(hidden)).backward()

    @torch.no_grad()
    def _dense_hidden(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        """What the dense head reads where a batch predicts a real token, [row, hidden]; read once."""
        batch = self.batches[number]
        known = [self.states[self.ids[sample]] for sample in batch.indices if self.ids[sample] in self.states]
        if len(known) == len(batch.indices):
            return torch.cat([states[:-1] for states in known])
        if number not in self.dense_hidden:
            self.dense_hidden[number] = predicting_hidden(self.dense, batch, rows)
        return self.dense_hidden[number]

    def _step(self, number: int, steps: int) -> None:
        """With rates that rise over the first steps and then fall in a straight line. Where there are more steps than
        those, the first ones know nothing of their number, which a clock may tell later.
        """
        torch.nn.utils.clip_grad_norm_(self.parameters, _LARGEST_GRADIENT)
        rising, falling = number / _WARM_UP, (steps + 1 - number) / steps
        share = rising if number <= _WARM_UP <= steps else min(rising, falling)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * share
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _now(self) -> float:
        return seconds_at(self.pruned.device)

    def _measure(self) -> float:
        return divergence(self.pruned, self.held_back)

    def _keep_if_better(self) -> None:
        now = self._measure()
        if now < self.least:
            self.least, self.kept = now, self.done
            for kept, parameter in zip(self.best, self.parameters, strict=True):
                kept.copy_(parameter.detach())

    @torch.no_grad()
    def _restore(self) -> None:
        """Put the best weights in place, as the base's files can hold them."""
        rounding = DTYPES[self.pruned.stored_dtype]
        for parameter, best in zip(self.parameters, self.best, strict=True):
            parameter.copy_(best.to(rounding))
            parameter.grad = None


def _divergence(dense_head: Head, dense_hidden: torch.Tensor, logits: torch.Tensor, block: slice) -> torch.Tensor:
    """Σ KL(dense ‖ pruned) over the rows of a block; `dense_hidden` [row, hidden] is what the dense head reads."""
    with torch.no_grad():
        dense = log_probabilities(dense_head(dense_hidden[block]))
    return functional.kl_div(log_probabilities(logits), dense, reduction="sum", log_target=True)


def _batches(text: TokenSet) -> list[Batch]:
    """All samples, of like length together, in batches of about `STEP_TOKENS`."""
    return list(text.batches(batch_size=text.num_samples, max_tokens=STEP_TOKENS))


def _endlessly(count: int) -> Iterator[int]:
    """0 to `count` - 1 again and again, each time in another order, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(count, generator=generator).tolist()
