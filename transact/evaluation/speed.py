"""Prefill and decode speed, of several models in alternation, so that a machine's drift affects all alike."""

import inspect
import statistics
from dataclasses import dataclass

import torch

from transact.errors import whole_number
from transact.layers.hooks import checking
from transact.models.loaded_model import LoadedModel
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.runtime.devices import seconds_at
from transact.spec.model_spec import ModelSpec

PREFILL_TOKENS = 256
DECODE_TOKENS = 32
REPEATS = 5


Spread = tuple[float, float]
"""The lowest and the highest tokens per second of the rounds."""


@dataclass(frozen=True)
class Speed:
    """Tokens per second, medians: reading a prompt in one pass, and writing token by token with a KV cache.

    `prefill_spread`, `decode_spread`: lowest and highest of the rounds. `prefill_flops_per_token`,
    `decode_flops_per_token`: forward FLOPs of the work that was timed: the output head runs once for the prompt, and
    for every new token.
    """

    prefill: float
    decode: float
    prefill_spread: Spread
    decode_spread: Spread
    prefill_flops_per_token: float
    decode_flops_per_token: float


def measure_speed(
    models: tuple[LoadedModel, ...],
    *,
    prefill_tokens: int = PREFILL_TOKENS,
    decode_tokens: int = DECODE_TOKENS,
    repeats: int = REPEATS,
    progress: Progress = NO_PROGRESS,
) -> tuple[Speed, ...]:
    """Time each model in turn, `repeats` rounds after a warm-up round; batch of 1, seeded token ids.

    Prompt and new tokens are cut to the context. Progress is in rounds. Raises `InvalidOption` for a number below 1.
    """
    prefill_tokens = whole_number(prefill_tokens, "prefill_tokens", least=1)
    decode_tokens = whole_number(decode_tokens, "decode_tokens", least=1)
    repeats = whole_number(repeats, "repeats", least=1)
    context = min(loaded.context_length for loaded in models)
    vocabulary = min(loaded.spec.vocab_size for loaded in models)
    prefill_tokens = max(1, min(prefill_tokens, context // 2))
    decode_tokens = max(1, min(decode_tokens, context - prefill_tokens))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (1, prefill_tokens), generator=generator)
    times: list[list[tuple[float, float]]] = [[] for _ in models]
    watch = Repeating(progress, repeats + 1, "speed rounds")
    for repeat in range(repeats + 1):
        watch(repeat, repeats + 1, "speed rounds")
        for loaded, taken in zip(models, times, strict=True):
            with checking(loaded.stages, watch.check):
                taken.append(_time_once(loaded, ids, decode_tokens))
    return tuple(
        _speed(loaded.spec, taken[1:], prefill_tokens, decode_tokens)
        for loaded, taken in zip(models, times, strict=True)
    )


def differ(one: Spread, other: Spread) -> bool:
    """Whether every round of one was faster than every round of the other; else the difference may be noise.

    Of two equal models, five rounds each differ so by chance in one of 126 cases (2 · 5! · 5! / 10!).
    """
    return one[1] < other[0] or other[1] < one[0]


def _speed(spec: ModelSpec, times: list[tuple[float, float]], prefill_tokens: int, decode_tokens: int) -> Speed:
    """`times` [round]: seconds to read `prefill_tokens`, and to write `decode_tokens`."""
    read = sorted(prefill_tokens / seconds for seconds, _ in times)
    written = sorted(decode_tokens / seconds for _, seconds in times)
    contexts = range(prefill_tokens + 1, prefill_tokens + decode_tokens + 1)
    return Speed(
        prefill=statistics.median(read),
        decode=statistics.median(written),
        prefill_spread=(read[0], read[-1]),
        decode_spread=(written[0], written[-1]),
        prefill_flops_per_token=spec.prefill_flops(prefill_tokens, logits=1) / prefill_tokens,
        decode_flops_per_token=sum(spec.flops_per_token(context=context) for context in contexts) / decode_tokens,
    )


@torch.inference_mode()
def _time_once(loaded: LoadedModel, ids: torch.Tensor, decode_tokens: int) -> tuple[float, float]:
    """Seconds to read the prompt, and to write `decode_tokens` after it."""
    ids = ids.to(loaded.device)
    started = seconds_at(loaded.device)
    output = loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    read = seconds_at(loaded.device)
    for _ in range(decode_tokens):
        token = output.logits[:, -1:].argmax(dim=-1)
        output = loaded.model(input_ids=token, use_cache=True, **cache_of(loaded.model, output))
    return read - started, seconds_at(loaded.device) - read


def cache_of(model: torch.nn.Module, output) -> dict:
    """The KV cache of a model's output as an argument of the next call.

    transformers 5.24 calls it `cache`; before, and in no version after 5.39, it is `past_key_values`.
    """
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: getattr(output, name)}
