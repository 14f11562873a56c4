"""A sentence continued by the dense and by the masked model, fast enough to follow a click."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import transact as ta
from transact.models.tasks_by_placement import WRITING
from ui.errors import NotYet
from ui.state.session import Session
from ui.work.registry import Registry
from ui.work.watch import Watch

PLAN, UNIT = "plan", "unit"
"""What is masked: all that the plan removes, or the selected unit alone."""
WRITTEN_TOKENS = 20
NEXT_TOKENS = 6
_DENSE = "dense"


@dataclass(frozen=True)
class Said:
    """What a model says after a prompt: the words that follow, and the likeliest first tokens with probabilities."""

    words: str
    next_tokens: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Live:
    """What the dense model says and what the masked one does, or the `reason` why nothing is masked; `seconds` that it
    took.
    """

    prompt: str
    masked: str
    dense: Said
    behind_mask: Said | None
    seconds: float
    reason: str = ""


def live(registry: Registry, session: Session, prompt: str, what: str, watch: Watch) -> Live:
    """Both models' words; what was said before is remembered.

    Raises `NotYet` where the model is not in memory, and as `transact.generate` does.
    """
    session.key.need_weights()
    loaded = registry.in_memory(session.key)
    if loaded is None or not loaded.can(WRITING):
        raise NotYet("This model is not in memory as a whole, so it cannot write at a click.")
    began = time.monotonic()
    dense = registry.said((loaded.fingerprint, prompt, _DENSE), lambda: _said(loaded, prompt, watch))
    try:
        mask, name = _mask(session, loaded, what)
    except NotYet as error:
        return Live(prompt, what, dense, None, time.monotonic() - began, str(error))
    with mask:
        masked = registry.said((loaded.fingerprint, prompt, name), lambda: _said(loaded, prompt, watch))
    return Live(prompt, what, dense, masked, time.monotonic() - began)


def _mask(session: Session, loaded: ta.LoadedModel, what: str) -> tuple[AbstractContextManager, str]:
    """The mask, not put on yet, and a name that tells it from others. Raises `NotYet` where nothing can be masked."""
    if what == UNIT:
        unit = session.view.selection
        if unit.head is None and not unit.channels:
            raise NotYet("Click a head or a channel in a map: what is said without it will stand here.")
        heads = () if unit.head is None else (unit.head,)
        return ta.knocked_out(loaded, unit.layer, heads=heads, channels=unit.channels), repr(unit)
    plan = session.need_plan()
    return ta.masked(loaded, plan), plan.digest


def _said(loaded: ta.LoadedModel, prompt: str, watch: Watch) -> Said:
    words = ta.generate(loaded, prompt, max_new_tokens=WRITTEN_TOKENS, progress=watch)
    return Said(words, ta.next_tokens(loaded, prompt, count=NEXT_TOKENS))
