"""Text from a model, greedily or sampled, stoppable at every token."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from transact.calibration import check_ids, encode
from transact.errors import InvalidOption, InvalidPrompt, InvalidText, NonFiniteActivations
from transact.loading import LoadedModel
from transact.progress import NO_PROGRESS, Progress

_SAMPLES_AT_ONCE = 64


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

    Plain decoding, whatever the checkpoint's generation config prefers (penalties, beams): two models are to
    be compared. Never runs past the model's context. Raises `InvalidPrompt` for an empty prompt or one that
    fills the context, `InvalidOption` for a number out of range, and whatever `progress` raises.
    """
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise InvalidOption(
            f"{max_new_tokens} new tokens at temperature {temperature} were asked for; at least 1 token and a "
            "temperature from 0 are allowed."
        )
    prompt_ids = encode_prompt(loaded, prompt)
    new_tokens = min(max_new_tokens, loaded.context_length - len(prompt_ids))
    ids = torch.tensor([prompt_ids], device=loaded.device)

    def told(length: int) -> None:
        progress(length - len(prompt_ids), new_tokens, "tokens")

    with torch.random.fork_rng(enabled=temperature > 0), torch.inference_mode():
        if temperature > 0:
            torch.manual_seed(seed)
        output = _continued(_with_plain_decoding(loaded, new_tokens, temperature), ids, told)
    # decoded together and cut, as some tokenizers drop the space in front of a text's first word
    given = loaded.tokenizer.decode(prompt_ids, skip_special_tokens=True)
    return loaded.tokenizer.decode(output[0], skip_special_tokens=True).removeprefix(given)


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

    A sample ends where the model ends it (EOS, or BOS where texts follow one another). The first token is BOS, or EOS
    where there is no BOS, or one drawn from the whole vocabulary. Raises `InvalidOption` for a number out of range and
    `NonFiniteActivations`.
    """
    seq_len = min(seq_len, loaded.context_length)
    if num_samples < 1 or seq_len < 2 or not 0 < temperature < float("inf"):
        raise InvalidOption(
            f"{num_samples} samples of {seq_len} tokens at temperature {temperature} were asked for; at least 1 sample "
            "of 2 tokens and a temperature above 0 are allowed."
        )
    names = loaded.model.generation_config if loaded.tokenizer is None else loaded.tokenizer
    marks = [mark for mark in (names.bos_token_id, names.eos_token_id) if isinstance(mark, int)]
    rows: list[list[int]] = []
    model = _with_plain_decoding(loaded, seq_len - 1, temperature)
    model.generation_config.eos_token_id = None  # a row that ended goes on, and is cut afterwards
    devices = [loaded.device] if loaded.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        while len(rows) < num_samples:
            size = min(_SAMPLES_AT_ONCE, num_samples - len(rows))
            start = torch.full((size, 1), marks[0]) if marks else torch.randint(loaded.spec.vocab_size, (size, 1))
            told = partial(_told_of_many, progress, len(rows) * seq_len, size, num_samples * seq_len)
            rows += [_up_to_mark(row, marks) for row in _continued(model, start.to(loaded.device), told).tolist()]
    return rows


def _told_of_many(progress: Progress, before: int, samples: int, total: int, length: int) -> None:
    progress(before + samples * length, total, "tokens")


def _up_to_mark(row: list[int], marks: list[int]) -> list[int]:
    """The row up to the first mark after its first token, that one left out; never a single token."""
    end = next((index for index, token in enumerate(row) if index > 1 and token in marks), len(row))
    return row[:end]


def _continued(model: PreTrainedModel, ids: torch.Tensor, told: Callable[[int], None]) -> torch.Tensor:
    """[sample, seq] -> [sample, seq + new]; `told` of the length after each token."""
    try:
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), stopping_criteria=StoppingCriteriaList([_Watch(told)])
        )
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise NonFiniteActivations(
            "The model's predictions are NaN or infinite, so none can be drawn. The weights may be damaged; if not, "
            'load the model with dtype="float32".'
        ) from error


def encode_prompt(loaded: LoadedModel, prompt: str) -> list[int]:
    """BOS (where the tokenizer has one) + tokens; raises `InvalidPrompt`."""
    if loaded.tokenizer is None:
        raise InvalidPrompt("This model came without a tokenizer, so it cannot read a prompt.")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidPrompt("The prompt is empty. Give it a few words to go on from.")
    try:
        (ids,) = encode([prompt], loaded.tokenizer)
        check_ids(max(ids, default=0), loaded.spec.vocab_size, loaded.tokenizer)
    except InvalidText as error:
        raise InvalidPrompt(str(error)) from None
    if len(ids) >= loaded.context_length:
        raise InvalidPrompt(
            f"The prompt has {len(ids):,} tokens and the model's context is {loaded.context_length:,}, which leaves "
            "no room to go on. Shorten it."
        )
    return ids


def _with_plain_decoding(loaded: LoadedModel, new_tokens: int, temperature: float) -> PreTrainedModel:
    """The model under another generation config, sharing every weight.

    A config passed to `generate` would be filled up from the model's own, which other threads share.
    """
    eos = loaded.model.generation_config.eos_token_id
    first = eos[0] if isinstance(eos, list) and eos else eos
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    model = copy.copy(loaded.model)
    model.generation_config = GenerationConfig(
        max_new_tokens=new_tokens,
        bos_token_id=loaded.model.generation_config.bos_token_id,
        eos_token_id=eos or None,
        # a single sequence is never padded; an id is named so that generate does not warn
        pad_token_id=first if isinstance(first, int) else 0,
        **sampling,
    )
    return model


class _Watch(StoppingCriteria):
    """Tells of each new token; stopping is the progress's `Cancelled` passing through."""

    def __init__(self, told: Callable[[int], None]):
        self.told = told

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        self.told(input_ids.shape[1])
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
