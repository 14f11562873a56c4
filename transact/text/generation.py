"""Text from a model, greedily or sampled; cancellation is checked at every layer of every token."""

import copy
from collections.abc import Callable
from functools import partial
from numbers import Real

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from transact.errors import InvalidOption, InvalidPrompt, InvalidText, NonFiniteActivations, seed_number, whole_number
from transact.layers.hooks import checking
from transact.models.loaded_model import LoadedModel
from transact.progress import NO_CHECK, NO_PROGRESS, Check, Progress, Repeating
from transact.runtime.random_numbers import draw
from transact.spec.model_spec import ModelSpec
from transact.text.encoding import Beginning, encode
from transact.text.tokens import check_ids

_SAMPLES_AT_ONCE, _MAX_SAMPLES = 64, 2**20


def generate(
    loaded: LoadedModel,
    prompt: str,
    *,
    max_new_tokens: int = 80,
    temperature: float = 0.0,
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
) -> str:
    """The continuation of `prompt` (without the prompt): greedy at temperature 0, else sampled with `seed`.

    Plain decoding, whatever the checkpoint's generation config prefers (penalties, beams), so that models can be
    compared. Never runs past the model's context. The random numbers are drawn from a generator of its own: the
    same seed gives the same text whatever else the process does.

    Raises `InvalidPrompt` for an empty prompt or one that fills the context, `InvalidOption` for a number out of
    range, `NonFiniteActivations`, and whatever `progress` raises.
    """
    max_new_tokens = whole_number(max_new_tokens, "max_new_tokens", least=1)
    choose = _Chooser(temperature, seed, loaded.device)
    prompt_ids = encode_prompt(loaded, prompt)
    new_tokens = min(max_new_tokens, loaded.context_length - len(prompt_ids))
    ids = torch.tensor([prompt_ids], device=loaded.device)
    watch = Repeating(progress, new_tokens, "tokens")

    def report_length(length: int) -> None:
        watch(length - len(prompt_ids), new_tokens, "tokens")

    with checking(loaded.stages, watch.check):
        output = _continued(_with_plain_decoding(loaded, new_tokens), ids, choose, report_length)
    # decoded together and cut, as some tokenizers drop the space in front of a text's first word
    assert loaded.tokenizer is not None, "it encoded the prompt"
    decoded_prompt = loaded.tokenizer.decode(prompt_ids, skip_special_tokens=True)
    return loaded.tokenizer.decode(output[0], skip_special_tokens=True).removeprefix(decoded_prompt)


@torch.inference_mode()
def next_tokens(loaded: LoadedModel, prompt: str, *, count: int = 5) -> tuple[tuple[str, float], ...]:
    """The `count` most likely tokens after `prompt`, as text, with their probabilities; the likeliest first.

    Raises `InvalidPrompt` as `generate` does and `InvalidOption` for a count out of range.
    """
    count = whole_number(count, "count", least=1, most=loaded.spec.vocab_size)
    ids = torch.tensor([encode_prompt(loaded, prompt)], device=loaded.device)
    logits = loaded.model(ids, use_cache=False).logits[0, -1]
    likeliest = logits.float().softmax(dim=-1).topk(count)
    assert loaded.tokenizer is not None, "it encoded the prompt"
    words = [loaded.tokenizer.decode([token]) for token in likeliest.indices.tolist()]
    return tuple(zip(words, likeliest.values.tolist(), strict=True))


def sample_rows(
    loaded: LoadedModel,
    *,
    num_samples: int,
    seq_len: int,
    temperature: float = 1.0,
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
) -> list[list[int]]:
    """Token ids that the model draws by itself from its first token on, one list a sample, at most `seq_len` long.

    A sample ends where the model ends it (EOS, or BOS where texts follow one another). It begins with what the
    tokenizer puts in front of a sequence. Where that is nothing, it is drawn after BOS, or EOS where there is no BOS,
    or a token drawn from the whole vocabulary, which is then left out (and kept where there is no tokenizer to ask).
    At most 2²⁰ samples are drawn. Raises `InvalidOption` for a number out of range and `NonFiniteActivations`.
    """
    num_samples = whole_number(num_samples, "num_samples", least=1, most=_MAX_SAMPLES)
    front = () if loaded.tokenizer is None else Beginning.of(loaded.tokenizer).ids
    dropped = int(loaded.tokenizer is not None and not front)
    seq_len = min(whole_number(seq_len, "seq_len", least=2) + dropped, loaded.context_length)
    choose = _Chooser(temperature, seed, loaded.device)
    if temperature == 0:
        raise InvalidOption("temperature is 0, at which all samples would be the same; give a number above 0.")
    names = loaded.model.generation_config if loaded.tokenizer is None else loaded.tokenizer
    ends = [*_ids(names.bos_token_id), *_ids(names.eos_token_id)]
    front = front or tuple(ends[:1])
    rows: list[list[int]] = []
    model = _with_plain_decoding(loaded, seq_len - max(len(front), 1))
    model.generation_config.eos_token_id = None  # a row that has ended continues, and is cut afterwards
    watch = Repeating(progress, num_samples * seq_len, "tokens")
    with checking(loaded.stages, watch.check):
        while len(rows) < num_samples:
            size = min(_SAMPLES_AT_ONCE, num_samples - len(rows))
            start = torch.tensor([front] * size, device=loaded.device) if front else choose.any_of(loaded.spec, size)
            report_length = partial(_report_tokens, watch, len(rows) * seq_len, size, num_samples * seq_len)
            drawn = _continued(model, start, choose, report_length)[:, dropped:].tolist()
            first = max(start.shape[1] - dropped + 1, 2)  # at least two tokens a sample
            rows += [_up_to_end(row, first, ends) for row in drawn]
    return rows


def _report_tokens(progress: Progress, before: int, samples: int, total: int, length: int) -> None:
    progress(before + samples * length, total, "tokens")


def _up_to_end(row: list[int], first: int, ends: list[int]) -> list[int]:
    """The row up to the first of `ends` at place `first` or later, that one left out."""
    end = next((index for index, token in enumerate(row) if index >= first and token in ends), len(row))
    return row[:end]


def continued_rows(
    loaded: LoadedModel, rows: list[list[int]], *, max_new_tokens: int, check: Check = NO_CHECK
) -> list[list[int]]:
    """What the model writes greedily after each row of token ids, all at once; rows may differ in length.

    At most `max_new_tokens` each, up to the end that the model sets (EOS, left out), and never past the context.
    """
    longest = max(map(len, rows), default=0)
    new_tokens = min(max_new_tokens, loaded.context_length - longest)
    if not rows or new_tokens < 1:
        return [[] for _ in rows]
    model = _with_plain_decoding(loaded, new_tokens)
    padding, ends = model.generation_config.pad_token_id, _ids(model.generation_config.eos_token_id)
    # padded in front, so that all rows go on at the same place; positions follow the mask
    ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=loaded.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=loaded.device)
    with checking(loaded.stages, check):
        output = _continued(model, ids, _Chooser(0.0, 0, loaded.device), mask=mask)
    return [_up_to_end(row, 0, ends) for row in output[:, longest:].tolist()]


@torch.inference_mode()
def _continued(
    model: PreTrainedModel,
    ids: torch.Tensor,
    choose: "_Chooser",
    report_length: Callable[[int], None] = lambda length: None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """[sample, seq] -> [sample, seq + new]; `report_length` is called with the length after each token.

    `mask`: 0 at padding, [sample, seq]; by default there is none.
    """
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids) if mask is None else mask,
        logits_processor=LogitsProcessorList([choose]),
        stopping_criteria=StoppingCriteriaList([_LengthReporter(report_length)]),
    )


def encode_prompt(loaded: LoadedModel, prompt: str) -> list[int]:
    """The prompt's tokens, begun as the tokenizer begins a sequence; raises `InvalidPrompt`.

    For a model that needs a BOS which its tokenizer does not add, the prompt may start with it, spelled out.
    """
    if loaded.tokenizer is None:
        raise InvalidPrompt("This model came without a tokenizer, so it cannot read a prompt.")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidPrompt("The prompt is empty. Give it a few words to go on from.")
    try:
        ids = Beginning.of(loaded.tokenizer).prepended_to(encode([prompt], loaded.tokenizer)[0])
        check_ids(max(ids, default=0), loaded.spec.vocab_size, loaded.tokenizer)
    except InvalidText as error:
        raise InvalidPrompt(str(error)) from None
    if not ids:
        raise InvalidPrompt("The model's tokenizer makes no token of this prompt. Give it other words to go on from.")
    if len(ids) >= loaded.context_length:
        raise InvalidPrompt(
            f"The prompt has {len(ids):,} tokens and the model's context is {loaded.context_length:,}, which leaves "
            "no room to go on. Shorten it."
        )
    return ids


def _with_plain_decoding(loaded: LoadedModel, new_tokens: int) -> PreTrainedModel:
    """The model under another generation config, sharing every weight.

    A config passed to `generate` would be filled up from the model's own, which other threads share.
    """
    eos = _ids(loaded.model.generation_config.eos_token_id)
    model = copy.copy(loaded.model)
    model.generation_config = GenerationConfig(
        max_new_tokens=new_tokens,
        bos_token_id=loaded.model.generation_config.bos_token_id,
        eos_token_id=eos or None,
        # a single sequence is never padded; the id is set so that `generate` does not warn
        pad_token_id=eos[0] if eos else 0,
        do_sample=False,  # `_Chooser` draws
    )
    return model


def _ids(named: int | list[int] | None) -> list[int]:
    """The token ids that a configuration names in a place: none, one (0 is one as any other) or several."""
    return named if isinstance(named, list) else [] if named is None else [named]


class _Chooser(LogitsProcessor):
    """Leaves the greedy choice as it is at temperature 0; otherwise draws a token and rules out all others.

    `generate` itself draws from the process's generator, which any thread may draw from or seed anew.
    Raises `InvalidOption` for a temperature or seed out of range; `NonFiniteActivations` when it meets predictions
    that are NaN or infinite.
    """

    def __init__(self, temperature: float, seed: int, device: torch.device):
        if isinstance(temperature, bool) or not isinstance(temperature, Real) or not 0 <= temperature < float("inf"):
            raise InvalidOption(f"temperature is {temperature!r}; give a number from 0, which is greedy.")
        self.temperature: float = temperature
        self.generator: torch.Generator = torch.Generator(device).manual_seed(seed_number(seed))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        largest = scores.amax(dim=-1, keepdim=True)
        if not bool(largest.isfinite().all()):
            raise NonFiniteActivations(
                "The model's predictions are NaN or infinite, so no token can be chosen. The weights may be damaged; "
                'if not, load the model with dtype="float32".'
            )
        if self.temperature == 0:
            return scores
        chosen = draw(((scores - largest).double() / self.temperature).log_softmax(dim=-1), self.generator)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    def any_of(self, spec: ModelSpec, size: int) -> torch.Tensor:
        """Tokens drawn from the whole vocabulary, [sample, 1]."""
        return torch.randint(spec.vocab_size, (size, 1), generator=self.generator, device=self.generator.device)


class _LengthReporter(StoppingCriteria):
    """Reports each new token; what the report raises, as `Cancelled`, ends the generation."""

    def __init__(self, report_length: Callable[[int], None]):
        self.report_length = report_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        self.report_length(input_ids.shape[1])
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
