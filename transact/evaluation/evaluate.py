"""What pruning cost and what it saved: perplexity, agreement with the dense model, speed, size."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import torch

from transact.errors import InvalidText, NonFiniteActivations, NotEnoughMemory
from transact.evaluation.speed import DECODE_TOKENS, PREFILL_TOKENS, REPEATS, Speed, Spread, differ, measure_speed
from transact.models.chunked_logits import Head, log_probabilities, output_head, row_blocks, summed_divergence
from transact.models.loaded_model import DTYPES, Batch, LoadedModel
from transact.models.tasks_by_placement import TIMING, WRITING
from transact.progress import NO_PROGRESS, Progress, Repeating, part
from transact.runtime.devices import free_bytes
from transact.spec.memory_estimates import measuring_bytes
from transact.spec.model_spec import ModelSpec
from transact.text.generation import encode_prompt, generate
from transact.text.tokens import EvaluationSet, TokenSet
from transact.wording import counted

_BATCH_LOGITS = 1 << 24
"""Positions times words of one batch: models with a large vocabulary mostly have wide layers too."""
_MAX_BATCH = 32
_CONTEXT = 512
"""Context at which FLOPs per token are stated."""


@dataclass(frozen=True)
class EvalReport:
    """Everything measured on one model, beside its reference where one was given.

    `perplexity_standard_error` and `perplexity_difference_standard_error` count the variation between texts
    (the second one pairs them); None where there is only one text. `top1_agreement` is the share of
    positions where both models rate the same token highest, `kl_divergence` the mean of KL(reference ‖ model)
    in nats over the same positions. Speeds in tokens per second, medians of the rounds, with the lowest and highest as
    `prefill_spread` and `decode_spread`; `prefill_differs` and `decode_differs`: whether more than noise is between the
    two models (never between equal shapes and dtypes); `prefill_flops_per_token` and `decode_flops_per_token` are of
    the work that was timed. `flops_per_token` at a context of 512, `kv_bytes_per_token` for 16-bit values, as
    in a plan's summary, while no sliding window is full, `checkpoint_bytes` in the dtype of the base's files.
    `protocol` says for each group of numbers how it was taken. Fields without a reference are None.
    """

    perplexity: float
    perplexity_standard_error: float | None
    num_predictions: int
    parameters: int
    flops_per_token: int
    kv_bytes_per_token: int
    checkpoint_bytes: int
    protocol: dict[str, str]
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    prefill_spread: Spread | None = None
    decode_spread: Spread | None = None
    prefill_flops_per_token: float | None = None
    decode_flops_per_token: float | None = None
    generation: str | None = None
    reference_perplexity: float | None = None
    reference_perplexity_standard_error: float | None = None
    perplexity_difference: float | None = None
    perplexity_difference_standard_error: float | None = None
    top1_agreement: float | None = None
    kl_divergence: float | None = None
    reference_parameters: int | None = None
    reference_flops_per_token: int | None = None
    reference_kv_bytes_per_token: int | None = None
    reference_checkpoint_bytes: int | None = None
    reference_prefill_tokens_per_second: float | None = None
    reference_decode_tokens_per_second: float | None = None
    reference_prefill_spread: Spread | None = None
    reference_decode_spread: Spread | None = None
    reference_prefill_flops_per_token: float | None = None
    reference_decode_flops_per_token: float | None = None
    prefill_differs: bool | None = None
    decode_differs: bool | None = None
    reference_generation: str | None = None

    def to_dict(self) -> dict:
        """JSON-able."""
        return dataclasses.asdict(self)


def perplexity(loaded: LoadedModel, evaluation: TokenSet, *, progress: Progress = NO_PROGRESS) -> float:
    """exp of the mean negative log-likelihood over all real next-token predictions.

    Raises `InvalidText` where there is nothing to predict, `NonFiniteActivations` for NaN losses.
    """
    return _measure_losses(loaded, evaluation, progress).perplexity


def evaluate(
    loaded: LoadedModel,
    evaluation: EvaluationSet,
    *,
    reference: LoadedModel | None = None,
    prompt: str | None = None,
    speed: bool = True,
    progress: Progress = NO_PROGRESS,
) -> EvalReport:
    """Measure `loaded`, and how it differs from `reference` on the same tokens.

    `prompt`: also continue it greedily, with both. `speed=False` leaves the timing out; a streamed model (see
    `load_streamed`), on either side, is never timed. Raises as `perplexity` does, `InvalidText` for a reference with
    another vocabulary, and `InvalidOption` for a prompt where a model is streamed.
    """
    models = (loaded,) if reference is None else (loaded, reference)
    speed = speed and all(model.can(TIMING) for model in models)
    if prompt is not None:
        for model in models:
            model.check_can(WRITING)
        for model in models:
            encode_prompt(model, prompt)  # refused now rather than after the measurements
    agreement = None if reference is None else _compare(loaded, reference, evaluation, progress)
    losses = _measure_losses(loaded, evaluation, progress) if agreement is None else agreement.losses
    timed = measure_speed(models, progress=progress) if speed else ()
    speeds = timed or (None,) * len(models)
    texts = [None if prompt is None else generate(model, prompt, progress=progress) for model in models]
    compared: dict[str, Any] = {}
    if agreement is not None and reference is not None:
        compared = _reference_fields(agreement, reference, speeds[1], texts[1])
        compared |= _differences((loaded, reference), timed) if timed else {}
    return EvalReport(
        perplexity=losses.perplexity,
        perplexity_standard_error=losses.standard_error,
        num_predictions=evaluation.num_predictions,
        **_costs(loaded, speeds[0], texts[0], prefix=""),
        **compared,
        protocol=_protocol(loaded, evaluation, prompt, speed),
    )


@dataclass(frozen=True, eq=False)
class _Losses:
    """Summed loss (nats, float64) and number of predictions of each sample."""

    sums: torch.Tensor
    counts: torch.Tensor

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.mean, 700.0))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    @property
    def deviations(self) -> torch.Tensor:
        """Deviation of each sample from its share of the perplexity: the delta method on a ratio of sums."""
        return self.perplexity * (self.sums - self.mean * self.counts)

    @property
    def standard_error(self) -> float | None:
        return _clustered_error(self.deviations, self.counts)


@dataclass(frozen=True, eq=False)
class _Agreement:
    losses: _Losses
    reference_losses: _Losses
    top1_agreement: float
    kl_divergence: float

    @property
    def difference_error(self) -> float | None:
        """Standard error of the difference; both models read the same samples, so the samples are paired."""
        return _clustered_error(self.losses.deviations - self.reference_losses.deviations, self.losses.counts)


def _clustered_error(deviations: torch.Tensor, counts: torch.Tensor) -> float | None:
    """sqrt(n / (n − 1) · Σ_samples deviation²) / Σ counts: the texts are independent, their tokens are not."""
    samples = int((counts > 0).sum())
    if samples < 2:
        return None
    return float((samples / (samples - 1) * deviations.square().sum()).sqrt() / counts.sum())


def _measure_losses(loaded: LoadedModel, evaluation: TokenSet, progress: Progress) -> _Losses:
    sums = torch.zeros(evaluation.num_samples, dtype=torch.float64)
    head = output_head(loaded)
    with torch.inference_mode():
        for block in _predictions((loaded,), evaluation, progress):
            losses = -_of_targets(log_probabilities(head(block.hidden[0])), block.targets)
            sums.index_add_(0, block.samples, losses.double().cpu())
    return _checked(sums, evaluation)


def _compare(loaded: LoadedModel, reference: LoadedModel, evaluation: EvaluationSet, progress: Progress) -> _Agreement:
    if loaded.spec.vocab_size != reference.spec.vocab_size:
        raise InvalidText(
            f"The reference has a vocabulary of {reference.spec.vocab_size}, this model one of "
            f"{loaded.spec.vocab_size}; their predictions cannot be compared. Take the model this one was cut from."
        )
    sums = torch.zeros(2, evaluation.num_samples, dtype=torch.float64)
    models = (loaded, reference)
    heads = tuple(map(output_head, models))
    agreed, divergence = 0, 0.0
    with torch.inference_mode():
        for block in _predictions(models, evaluation, progress):
            losses, same, distance = _compared(heads, block)
            sums.index_add_(1, block.samples, losses)
            agreed += same
            divergence += distance
    return _Agreement(
        losses=_checked(sums[0], evaluation),
        reference_losses=_checked(sums[1], evaluation),
        top1_agreement=agreed / evaluation.num_predictions,
        kl_divergence=divergence / evaluation.num_predictions,
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """Some positions that predict a real token, few enough for their logits.

    Sample and target token of each, both int64 [row], and what each model's head reads there, [row, hidden].
    """

    samples: torch.Tensor
    targets: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


def _compared(heads: tuple[Head, ...], block: _Block) -> tuple[torch.Tensor, int, float]:
    """Losses of both models, float64 [model, row]; in how many rows they agree; Σ KL(second ‖ first)."""
    device = block.targets.device
    own, other = (log_probabilities(head(hidden)).to(device) for head, hidden in zip(heads, block.hidden, strict=True))
    losses = torch.stack([-_of_targets(each, block.targets).double().cpu() for each in (own, other)])
    agreed = int((own.argmax(dim=-1) == other.argmax(dim=-1)).sum())
    return losses, agreed, summed_divergence(other, own)


def _of_targets(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[row, vocabulary], [row] -> [row]"""
    return values.gather(1, targets[:, None])[:, 0]


def _predictions(models: tuple[LoadedModel, ...], evaluation: TokenSet, progress: Progress) -> Iterator[_Block]:
    """All predictions of real tokens, hidden states batch by batch and rows block by block."""
    if evaluation.num_predictions < 1:
        raise InvalidText("The text is too short to predict a token: every sample has a single token. Give more.")
    spec, device = models[0].spec, models[0].device
    for model in models:
        evaluation.check_fits(model)
    _check_fits(models, evaluation)
    widest = max((model.dtype for model in models), key=lambda dtype: dtype.itemsize)
    done, total = 0, evaluation.num_tokens
    watch = Repeating(progress, total, "tokens")
    batches = list(_batches(spec, evaluation))
    with ExitStack() as stack:
        outputs = [
            stack.enter_context(closing(model.final_hidden(batches, part(progress, number, len(models)), watch.check)))
            for number, model in enumerate(models)
        ]
        for batch in batches:
            rows = batch.predicting
            hidden = tuple(_at(next(each), rows) for each in outputs)
            targets = batch.input_ids[:, 1:][batch.mask[:, 1:]].to(device)
            samples = torch.tensor(batch.indices)[:, None].expand_as(rows)[rows]
            tokens = int(batch.mask.sum())
            for block in row_blocks(len(targets), spec.vocab_size, widest):
                watch(done + tokens * block.start // len(targets), total, "tokens")
                yield _Block(samples[block], targets[block], tuple(each[block] for each in hidden))
            done += tokens
            watch(done, total, "tokens")


def evaluation_bytes(
    spec: ModelSpec, evaluation: TokenSet, bytes_per_element: int = 4, *, reference: ModelSpec | None = None
) -> int:
    """About what `perplexity`, or `evaluate` with a reference, takes at its peak beside the models in memory."""
    positions = max(batch.mask.numel() for batch in _batches(spec, evaluation))
    both = 0 if reference is None else 2 * positions * reference.hidden_size * bytes_per_element
    return measuring_bytes(spec, positions, bytes_per_element) + both


def _check_fits(models: tuple[LoadedModel, ...], evaluation: TokenSet) -> None:
    """Raise `NotEnoughMemory`; the hidden states that streamed models hold are checked elsewhere."""
    itemsize = max(model.dtype.itemsize for model in models)
    reference = models[1].spec if len(models) > 1 else None
    needed = evaluation_bytes(models[0].spec, evaluation, itemsize, reference=reference)
    free = free_bytes(models[0].device)
    if needed > free:
        raise NotEnoughMemory(
            f"Measuring on sequences of {evaluation.input_ids.shape[1]:,} tokens needs about {needed / 1e9:.1f} GB "
            f"beside the model and {free / 1e9:.1f} GB are free. Give shorter sequences, or free some memory."
        )


def _batches(spec: ModelSpec, evaluation: TokenSet) -> Iterator[Batch]:
    return evaluation.batches(batch_size=_MAX_BATCH, max_tokens=max(_BATCH_LOGITS // spec.vocab_size, 1))


def _at(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[sample, seq, hidden] -> [row, hidden]"""
    return hidden[rows.to(hidden.device)]


def _checked(sums: torch.Tensor, evaluation: TokenSet) -> _Losses:
    if not bool(sums.isfinite().all()):
        raise NonFiniteActivations(
            "The model's loss is NaN or infinite on this text. The weights may be damaged; if not, load the model "
            'with dtype="float32".'
        )
    return _Losses(sums, torch.tensor(evaluation.lengths, dtype=torch.float64) - 1)


def _costs(loaded: LoadedModel, speed: Speed | None, text: str | None, *, prefix: str) -> dict:
    values = {
        "parameters": loaded.spec.num_parameters,
        "flops_per_token": loaded.spec.flops_per_token(context=_CONTEXT),
        "kv_bytes_per_token": loaded.spec.kv_bytes_per_token(),
        "checkpoint_bytes": loaded.spec.checkpoint_bytes(DTYPES[loaded.file_dtype].itemsize),
        "generation": text,
    }
    if speed is not None:
        values |= dataclasses.asdict(speed)
        for kind in ("prefill", "decode"):
            values[f"{kind}_tokens_per_second"] = values.pop(kind)
    return {prefix + name: value for name, value in values.items()}


def _reference_fields(agreement: _Agreement, reference: LoadedModel, speed: Speed | None, text: str | None) -> dict:
    return {
        "reference_perplexity": agreement.reference_losses.perplexity,
        "reference_perplexity_standard_error": agreement.reference_losses.standard_error,
        "perplexity_difference": agreement.losses.perplexity - agreement.reference_losses.perplexity,
        "perplexity_difference_standard_error": agreement.difference_error,
        "top1_agreement": agreement.top1_agreement,
        "kl_divergence": agreement.kl_divergence,
        **_costs(reference, speed, text, prefix="reference_"),
    }


def _differences(models: tuple[LoadedModel, LoadedModel], speeds: tuple[Speed, ...]) -> dict[str, bool]:
    """Whether the speeds of the two differ by more than noise; equal work is equally fast."""
    (one, other), (first, second) = models, speeds
    same = (one.spec, one.dtype, one.device) == (other.spec, other.dtype, other.device)
    return {
        "prefill_differs": not same and differ(first.prefill_spread, second.prefill_spread),
        "decode_differs": not same and differ(first.decode_spread, second.decode_spread),
    }


def _protocol(loaded: LoadedModel, evaluation: EvaluationSet, prompt: str | None, speed: bool) -> dict[str, str]:
    dtype = str(loaded.dtype).removeprefix("torch.")
    texts = (
        f"{evaluation.name}: {counted(evaluation.num_samples, 'sequence')}, "
        f"{counted(evaluation.num_predictions, 'prediction')}; "
        f"{evaluation.protocol}; {dtype}"
    )
    protocol = {
        "perplexity": f"exp of the mean loss over {texts}; standard error over texts, paired for the difference",
        "agreement": f"top-1 and KL(reference ‖ model), in nats, over the same positions of {texts}",
        "costs": (
            f"FLOPs per token at a context of {_CONTEXT}; KV-cache bytes for 16-bit values, checkpoint bytes in "
            f"{loaded.file_dtype}"
        ),
    }
    if speed:
        protocol["speed"] = (
            f"{loaded.device.type}, {torch.get_num_threads()} threads, {dtype}, batch 1, prompt of "
            f"{min(PREFILL_TOKENS, loaded.context_length // 2)} tokens, up to {DECODE_TOKENS} new tokens with a KV "
            f"cache; models in alternation, median and lowest to highest of {REPEATS} rounds; where these overlap, the "
            "difference is none within the noise. The operations are those of the same work: the output head at the "
            "prompt's last position alone, and at every new token"
        )
    if prompt is not None:
        protocol["generation"] = f"greedy, up to 80 tokens, from {prompt!r}"
    return protocol
