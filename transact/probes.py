"""Small evaluation sets of our own, one per kind of work that the bundled model learnt.

Each asks for one ability alone (adding, recalling, closing brackets, keeping names apart), so that pruning
can be seen to break one and spare another.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from transact.errors import InvalidText
from transact.generation import encode_prompt
from transact.loading import LoadedModel
from transact.progress import NO_PROGRESS, Progress

_FILE = Path(__file__).with_name("probes.json")


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
    kind: str
    description: str
    items: tuple[ExactMatch, ...] | tuple[MinimalPair, ...]


@dataclass(frozen=True)
class ProbeResult:
    kind: str
    correct: int
    total: int

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
    loaded: LoadedModel, probe: Probe, *, limit: int | None = None, progress: Progress = NO_PROGRESS
) -> ProbeResult:
    """Accuracy on the first `limit` items (all by default); progress in items.

    The score of a continuation takes one forward pass: an exact match is greedy exactly if every token of
    the answer is the likeliest after those before it.
    """
    items = probe.items[:limit]
    if not items:
        raise InvalidText(f"The probe {probe.kind!r} has no items to run. Ask for at least one.")
    correct = 0
    for index, item in enumerate(items):
        progress(index, len(items), "probe items")
        if isinstance(item, ExactMatch):
            correct += _read(loaded, item.prompt, item.answer).is_greedy
        else:
            good = _read(loaded, item.prompt, item.good).log_likelihood
            correct += good > _read(loaded, item.prompt, item.bad).log_likelihood
    progress(len(items), len(items), "probe items")
    return ProbeResult(probe.kind, correct, len(items))


@dataclass(frozen=True)
class _Reading:
    log_likelihood: float
    is_greedy: bool


@torch.inference_mode()
def _read(loaded: LoadedModel, prompt: str, continuation: str) -> _Reading:
    """How the model reads `continuation` after `prompt`."""
    start = encode_prompt(loaded, prompt).shape[1]
    ids = encode_prompt(loaded, prompt + continuation)
    log_probabilities = loaded.model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float().log_softmax(-1)
    targets = ids[0, start:]
    return _Reading(
        log_likelihood=float(log_probabilities.gather(1, targets[:, None]).sum()),
        is_greedy=bool((log_probabilities.argmax(dim=-1) == targets).all()),
    )
