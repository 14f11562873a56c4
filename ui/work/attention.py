"""What every head attends to on a sentence of the visitor's."""

import transact as ta
from transact.models.tasks_by_placement import ATTENTION
from ui.errors import NotYet
from ui.server import zerogpu
from ui.state.session import Attention, Session
from ui.work.registry import Registry
from ui.work.watch import Watch

TOKENS = 40
"""The first tokens of a sentence, as many as can be told apart in a figure."""


def attention(registry: Registry, session: Session, text: str, watch: Watch) -> Attention:
    """The patterns of all heads of the model in view; they need the model in memory, and are quickly there then.

    Raises `NotYet` where it is not there as a whole, and as `transact.attention_patterns` does.
    """
    session.key.need_weights()
    loaded = registry.in_memory(session.key)
    if loaded is None or not loaded.can(ATTENTION):
        raise NotYet(
            "This model is not in memory as a whole, so what its heads attend to cannot be shown. Choose a smaller one."
        )
    patterns = zerogpu.forward(ta.attention_patterns, loaded, text, tokens=TOKENS, seq_len=TOKENS, progress=watch)
    return Attention(session.key, text, patterns)
