"""Which tokens every head attends to, as the model itself computes it."""

from dataclasses import dataclass

import torch

from transact.errors import whole_number
from transact.layers.hooks import checking, copy_sharing_weights
from transact.models.loaded_model import LoadedModel
from transact.models.tasks_by_placement import ATTENTION
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.text.generation import encode_prompt


@dataclass(frozen=True, eq=False)
class AttentionPatterns:
    """The attention of all heads on one text.

    `tokens`: the text of each token, in order; one that is a part of a character may be shown as a replacement
    character. `layers[layer]`: float32 [head, query, key], the share of the query's attention that goes to the key.
    Keys after the query, or outside of the layer's window, get 0; a row adds up to 1.
    """

    tokens: tuple[str, ...]
    layers: tuple[torch.Tensor, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)


@torch.inference_mode()
def attention_patterns(
    loaded: LoadedModel, text: str, *, seq_len: int = 64, progress: Progress = NO_PROGRESS
) -> AttentionPatterns:
    """The attention of every head on `text`, begun as the tokenizer begins a sequence and cut at `seq_len` tokens.

    The weights are those of the model's own code with attention "eager" (rotary positions, windows, caps on logits and
    norms included), in a copy that shares the tensors: `loaded` stays as it is, and may run in other threads. Within
    `masked` or `knocked_out` they are the masked model's; in a pruned model heads count from 0 anew. `progress` is in
    forward passes, of which there is one.

    Raises `InvalidPrompt` for a text without tokens, `InvalidOption` for a model that is streamed or a `seq_len` out of
    range.
    """
    loaded.check_can(ATTENTION)
    ids = encode_prompt(loaded, text)[: whole_number(seq_len, "seq_len", least=1)]
    eager = copy_sharing_weights(loaded.model)
    eager.set_attn_implementation("eager")
    watch = Repeating(progress, 1, "forward passes")
    with checking(eager.get_submodule(loaded.layout.layers), watch.check):
        output = eager(torch.tensor([ids], device=loaded.device), use_cache=False, output_attentions=True)
    watch(1, 1, "forward passes")
    return AttentionPatterns(_token_texts(loaded, ids), tuple(each[0].float().cpu() for each in output.attentions))


def _token_texts(loaded: LoadedModel, ids: list[int]) -> tuple[str, ...]:
    """What each token adds to the text before it: decoded alone, some tokenizers drop the space in front of a word."""
    assert loaded.tokenizer is not None, "it encoded the text"
    texts, before = [], ""
    for end in range(1, len(ids) + 1):
        so_far = loaded.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        same = 0
        while same < min(len(before), len(so_far)) and before[same] == so_far[same]:
            same += 1
        texts.append(so_far[same:])
        before = so_far
    return tuple(texts)
