"""What a step is taken to cost, in forward passes, tokens and operations, before it has been run."""

import transact as ta
from ui.state.session import Sampling

SEARCH_PASSES, SPEED_STEPS, WRITTEN_TOKENS, PROBE_TOKENS = 30, 500, 80, 128
"""What the time on a lent GPU is asked for by: forward passes of a search (it takes eleven, some of them backward),
those that measure speed, tokens written at once, and tokens of a probe's item."""


def scoring_flops(spec: ta.ModelSpec, tokens: int, longest: int, sampling: Sampling) -> float:
    """Operations of scoring on so many tokens, in sequences of up to `longest`.

    A forward pass, and for gradients another and a backward pass (twice that).
    """
    return scoring_passes(sampling) * tokens / longest * float(spec.prefill_flops(longest, logits=0))


def scoring_passes(sampling: Sampling) -> int:
    """Forward passes that scoring comes to: a backward pass counts twice."""
    return 4 if sampling.taylor else 1
