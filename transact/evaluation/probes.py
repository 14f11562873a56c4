"""Small evaluation sets of our own, one per ability that the bundled model was trained for.

Each tests one ability alone (adding, recalling, closing brackets, keeping names apart), as pruning can break one and
spare another.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from transact.errors import InvalidText, whole_number
from transact.models.chunked_logits import Head, log_probabilities, output_head, row_blocks
from transact.models.loaded_model import LoadedModel
from transact.models.tasks_by_placement import WRITING
from transact.progress import NO_PROGRESS, Check, Progress, Repeating
from transact.text.generation import continued_rows, encode_prompt
from transact.text.tokens import TokenSet

_FILE = Path(__file__).with_name("probes.json")
_BATCH = 32
_MORE_TOKENS = 8
"""That a wrong line may be longer than the right one, so that its end is seen."""


@dataclass(frozen=True)
class ExactMatch:
    """Solved if the greedy continuation of `prompt` begins with `answer`."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class MinimalPair:
    """Solved if `good` is the likelier continuation of `prompt` than `bad`."""

    prompt: str
    good: str
    bad: str


@dataclass(frozen=True)
class Probe:
    """Items that all test the ability `kind`; `description` says how."""

    kind: str
    description: str
    items: tuple[ExactMatch, ...] | tuple[MinimalPair, ...]


@dataclass(frozen=True)
class ProbeAnswer:
    """What a model answered to one item: `given`, and whether it `is_right`.

    Of an exact match, what the model writes, up to the end of the line where the right answer ends one, else as many
    tokens as that has; None from a model that cannot write (a streamed one). Of a pair, the likelier of the two.
    """

    prompt: str
    right: str
    given: str | None
    is_right: bool


@dataclass(frozen=True)
class ProbeResult:
    """How many of the `total` items that were run a model solved; `accuracy` is their share.

    `answers`: one an item, in their order, where they were asked for.
    """

    kind: str
    correct: int
    total: int
    answers: tuple[ProbeAnswer, ...] = ()

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


@cache
def load_probes() -> tuple[Probe, ...]:
    """The probes of the bundled model, in the order of the file."""
    kinds = {"exact_match": ExactMatch, "minimal_pair": MinimalPair}
    entries = json.loads(_FILE.read_text(encoding="utf-8"))["probes"]
    return tuple(
        Probe(entry["kind"], entry["description"], tuple(kinds[entry["type"]](**item) for item in entry["items"]))
        for entry in entries
    )


def run_probe(
    loaded: LoadedModel,
    probe: Probe,
    *,
    limit: int | None = None,
    answers: bool = False,
    progress: Progress = NO_PROGRESS,
) -> ProbeResult:
    """Accuracy on the first `limit` items (all by default); progress in forward passes of the items.

    The score of a continuation takes one forward pass: an exact match is greedy exactly if every token of
    the answer is the likeliest after those before it. With `answers` the result also holds each answer; for those
    the model writes once more wherever its answer was wrong.
    """
    items = probe.items if limit is None else probe.items[: whole_number(limit, "limit")]
    if not items:
        raise InvalidText(f"The probe {probe.kind!r} has no items to run. Ask for at least one.")
    pairs = [(item.prompt, text) for item in items for text in _continuations(item)]
    watch = Repeating(progress, len(pairs), "probe items")
    likelihoods = iter(_likelihoods(loaded, pairs, watch))
    solved = []
    for item in items:
        if isinstance(item, ExactMatch):
            solved.append(next(likelihoods).is_greedy)
        else:
            solved.append(next(likelihoods).log_likelihood > next(likelihoods).log_likelihood)
    given = _answers(loaded, items, solved, watch.check) if answers else ()
    return ProbeResult(probe.kind, sum(solved), len(items), given)


def _answers(
    loaded: LoadedModel, items: tuple[ExactMatch | MinimalPair, ...], solved: list[bool], check: Check
) -> tuple[ProbeAnswer, ...]:
    wrong = [
        item for item, is_right in zip(items, solved, strict=True) if isinstance(item, ExactMatch) and not is_right
    ]
    written = iter(_written(loaded, wrong, check) if loaded.can(WRITING) else [None] * len(wrong))
    answers = []
    for item, is_right in zip(items, solved, strict=True):
        right, other = (item.answer, None) if isinstance(item, ExactMatch) else (item.good, item.bad)
        given = right if is_right else next(written) if isinstance(item, ExactMatch) else other
        answers.append(ProbeAnswer(item.prompt, right, given, is_right))
    return tuple(answers)


def _written(loaded: LoadedModel, items: list[ExactMatch], check: Check) -> list[str]:
    """What the model writes after each prompt, as far as the right answer goes."""
    tokenizer = loaded.tokenizer
    assert tokenizer is not None, "it encoded the prompts"
    prompts = [encode_prompt(loaded, item.prompt) for item in items]
    lengths = [
        len(encode_prompt(loaded, item.prompt + item.answer)) - len(prompt)
        for item, prompt in zip(items, prompts, strict=True)
    ]
    texts: list[str] = []
    for start in range(0, len(items), _BATCH):
        batch = slice(start, start + _BATCH)
        most = max(lengths[batch]) + _MORE_TOKENS
        rows = continued_rows(loaded, prompts[batch], max_new_tokens=most, check=check)
        for item, prompt, length, row in zip(items[batch], prompts[batch], lengths[batch], rows, strict=True):
            row = row if item.answer.endswith("\n") else row[: max(length, 1)]
            before, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + row))
            texts.append(_first_line(whole.removeprefix(before)))
    return texts


def _first_line(text: str) -> str:
    """The text up to its first line break, that included."""
    line, found, _ = text.partition("\n")
    return line + found


def _continuations(item: ExactMatch | MinimalPair) -> tuple[str, ...]:
    return (item.answer,) if isinstance(item, ExactMatch) else (item.good, item.bad)


@dataclass(frozen=True)
class _Likelihood:
    """How likely a continuation is after its prompt."""

    log_likelihood: float
    is_greedy: bool


@torch.inference_mode()
def _likelihoods(loaded: LoadedModel, pairs: list[tuple[str, str]], watch: Repeating) -> list[_Likelihood]:
    """The likelihood of every (prompt, continuation), in batches of like length."""
    rows = [encode_prompt(loaded, "".join(pair)) for pair in pairs]
    starts = [_boundary(encode_prompt(loaded, prompt), row) for (prompt, _), row in zip(pairs, rows, strict=True)]
    if 0 in starts:
        raise InvalidText(
            f"This model's tokenizer takes the prompt {pairs[starts.index(0)][0]!r} and what follows as one token, so "
            "that nothing stands before the answer. Begin the prompt with another word."
        )
    tokens = TokenSet.from_sequences(rows, name="probe")
    likelihoods: dict[int, _Likelihood] = {}
    batches, head = list(tokens.batches(batch_size=_BATCH)), output_head(loaded)
    for batch, hidden in zip(batches, loaded.final_hidden(batches, check=watch.check), strict=True):
        for row, index in enumerate(batch.indices):
            start, end = starts[index], tokens.lengths[index]
            likelihoods[index] = _likelihood_of(
                head, hidden[row, start - 1 : end - 1], batch.input_ids[row, start:end], loaded.spec.vocab_size
            )
        watch(len(likelihoods), len(pairs), "probe items")
    return [likelihoods[index] for index in range(len(pairs))]


def _likelihood_of(head: Head, hidden: torch.Tensor, targets: torch.Tensor, vocab_size: int) -> _Likelihood:
    """`hidden` [continuation, hidden], what the head reads; `targets` [continuation], the tokens that follow."""
    log_likelihood, is_greedy = 0.0, True
    for block in row_blocks(len(targets), vocab_size, hidden.dtype):
        own, expected = log_probabilities(head(hidden[block])).cpu(), targets[block]
        log_likelihood += float(own.gather(1, expected[:, None]).sum())
        is_greedy = is_greedy and bool((own.argmax(dim=-1) == expected).all())
    return _Likelihood(log_likelihood, is_greedy)


def _boundary(prompt: list[int], whole: list[int]) -> int:
    """Where the continuation begins: where both encodings differ, as a token may span prompt and continuation."""
    together = zip(prompt, whole, strict=False)
    return next(
        (index for index, (one, other) in enumerate(together) if one != other), min(len(prompt), len(whole) - 1)
    )
