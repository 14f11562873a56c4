"""Text from a model, greedily or sampled, stoppable at every token."""

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from transact.calibration import encode
from transact.errors import InvalidPrompt
from transact.loading import LoadedModel
from transact.progress import NO_PROGRESS, Progress


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

    Never runs past the model's context. Raises `InvalidPrompt` for an empty prompt or one that fills the
    context, and whatever `progress` raises.
    """
    ids = torch.tensor([encode_prompt(loaded, prompt)], device=loaded.device)
    room = loaded.context_length - ids.shape[1]
    new_tokens = min(max_new_tokens, room)
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    with torch.random.fork_rng(enabled=temperature > 0), torch.inference_mode():
        if temperature > 0:
            torch.manual_seed(seed)
        output = loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            stopping_criteria=StoppingCriteriaList([_Watch(progress, ids.shape[1], new_tokens)]),
            pad_token_id=_pad_token(loaded),
            **sampling,
        )
    return loaded.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def encode_prompt(loaded: LoadedModel, prompt: str) -> list[int]:
    """BOS (where the tokenizer has one) + tokens; raises `InvalidPrompt`."""
    if loaded.tokenizer is None:
        raise InvalidPrompt("This model came without a tokenizer, so it cannot read a prompt.")
    if not prompt.strip():
        raise InvalidPrompt("The prompt is empty. Give it a few words to go on from.")
    (ids,) = encode([prompt], loaded.tokenizer)
    if len(ids) >= loaded.context_length:
        raise InvalidPrompt(
            f"The prompt has {len(ids):,} tokens and the model's context is {loaded.context_length:,}, which leaves "
            "no room to go on. Shorten it."
        )
    return ids


def _pad_token(loaded: LoadedModel) -> int:
    """Any id will do, as a single sequence is never padded; naming one keeps generate from warning."""
    eos = loaded.model.generation_config.eos_token_id
    eos = eos[0] if isinstance(eos, list) else eos
    return eos if eos is not None else 0


class _Watch(StoppingCriteria):
    """Reports each new token; stopping is the progress's `Cancelled` passing through."""

    def __init__(self, progress: Progress, prompt_tokens: int, new_tokens: int):
        self.progress = progress
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        self.progress(input_ids.shape[1] - self.prompt_tokens, self.new_tokens, "tokens")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
