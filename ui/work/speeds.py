"""How fast this machine is, by model and kind of step: measured when a model comes in, and by every step since."""

import random
import time
from collections.abc import Hashable

import transact as ta
from ui.state.session import ModelKey
from ui.work.forecast import Step

_TIMED_OPERATIONS = 2e10
"""A forward pass that takes a fraction of a second on two processor cores."""
_TIMED_TOKENS = range(16, 257)
_LATEST_WEIGHS = 0.6


class Speeds:
    """Seconds per operation of a forward pass (or per byte), by model and step."""

    def __init__(self):
        self._forward: dict[ModelKey, float] = {}
        self._steps: dict[Hashable, float] = {}
        self._latest: float | None = None

    def note_forward(self, key: ModelKey, operations: float, seconds: float) -> None:
        """Remember how long a forward pass took, as scoring does."""
        self._latest = self._forward[key] = max(seconds, 1e-3) / operations

    def forward_seconds(self, operations: float, key: ModelKey | None = None) -> float | None:
        """How long so much work should take with that model, or with the last one; None before anything was timed."""
        per_operation = self._forward.get(key, self._latest)
        return None if per_operation is None else per_operation * operations

    def knows(self, key: ModelKey) -> bool:
        """Whether that model was timed."""
        return key in self._forward

    def step(self, name: str, key: ModelKey, work: float, *, factor: float = 1.0, how: str = "") -> Step:
        """A step of a job on that model: by how long the last ones of the kind took, or as `factor` forward passes of
        as many operations; `how` tells kinds of one name apart.
        """
        kind = (name, how, key)
        known, forward = self._steps.get(kind), self._forward.get(key)
        per = known if known is not None else None if forward is None else factor * forward
        return Step(name, None if per is None else per * work, work, kind)

    def file_step(
        self, name: str, num_bytes: float, bytes_per_second: float, *, fixed: float = 0.0, how: str = ""
    ) -> Step:
        """A step that writes files: `fixed` seconds and so many bytes a second, until one was timed."""
        kind = (name, how)
        known = self._steps.get(kind)
        seconds = fixed + num_bytes / bytes_per_second if known is None else known * num_bytes
        return Step(name, seconds, num_bytes, kind)

    def learn(self, timings: list[tuple[Step, float]]) -> None:
        """Remember what steps took."""
        for step, seconds in timings:
            latest = seconds / step.work
            before = self._steps.get(step.kind, latest)
            self._steps[step.kind] = before + _LATEST_WEIGHS * (latest - before)


def timed_forward(loaded: ta.LoadedModel, progress: ta.Progress) -> tuple[float, float]:
    """Operations of a short forward pass as scoring makes it, and the seconds that it takes once warm."""
    per_token = float(loaded.spec.prefill_flops(1, logits=0))
    length = min(max(_TIMED_TOKENS), loaded.context_length)
    tokens = max(min(_TIMED_TOKENS), min(length, int(_TIMED_OPERATIONS / per_token)))
    draw = random.Random(0)
    ids = [draw.randrange(loaded.spec.vocab_size) for _ in range(tokens)]
    text = ta.CalibrationSet.from_token_ids([ids], name="timing")
    seconds = []
    for _ in range(2):
        began = time.monotonic()
        ta.observe(loaded, text, progress=progress)
        seconds.append(time.monotonic() - began)
    return float(loaded.spec.prefill_flops(tokens, logits=0)), min(seconds)
