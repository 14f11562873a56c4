"""How much of a text is measured: all of it, or what this machine reads of it with this model in half a minute."""

from dataclasses import dataclass

from ui.state.options import FULL
from ui.state.session import Scored

SECONDS = 30.0
"""What a quick measurement is to take."""
LEAST_TOKENS = 2_048
"""Below that, the error of a perplexity hides all but large losses."""
_MOST_TOKENS = 2**20
_SPEED_TOKENS = 7_000
"""Tokens that are read in the time in which the speed of two models is taken."""
_OWN_SHARE = 0.7
"""Of the time, where nothing but both models' predictions is measured: for these; the rest goes into writing."""


@dataclass(frozen=True)
class Size:
    """At most `tokens` of the text, in whole sequences, None for all; `beside`: also the speed and the floor."""

    tokens: int | None = None
    beside: bool = True


ALL = Size()


def size_of(name: str, scored: Scored) -> Size:
    """What a quick or a full measurement comes to, from the time in which the calibration text was read.

    The same for every plan of a run of scores, so that its results can be compared.
    """
    if name == FULL:
        return ALL
    budget = SECONDS * scored.tokens_per_second
    with_all = (budget - _SPEED_TOKENS) / 3  # the dense model, the pruned one, and one that is pruned by chance
    if with_all >= LEAST_TOKENS:
        return Size(_rounded(with_all))
    return Size(_rounded(_OWN_SHARE * budget / 2), beside=False)


def _rounded(tokens: float) -> int:
    """Down to a power of two within bounds, so that a little more or less time gives the same numbers."""
    return int(min(_MOST_TOKENS, max(LEAST_TOKENS, 2 ** (max(int(tokens), 1).bit_length() - 1))))
