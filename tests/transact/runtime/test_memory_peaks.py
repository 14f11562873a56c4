"""What work takes at its peak where the vocabulary is large: each in a process of its own, as the system counts it."""

import sys

import pytest

from benchmarks.memory import WORKS, in_its_own_process
from tests.tiers import cases

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")

ALLOWANCE = 300_000_000
"""Above the weights that the work has to hold. Whole logits of one sample alone are 537 MB."""
HELD = {"recover": 5}
"""Times the weights: the dense model, the pruned one, its gradient and two moments; once where nothing is said."""


@pytest.mark.long
@pytest.mark.parametrize("work", cases(WORKS, test=["perplexity"]))
def test_a_large_vocabulary_takes_little_beside_the_weights(work):
    found = in_its_own_process(work)
    assert found["weights_bytes"] > 262_144 * 64 * 4
    assert found["peak_bytes"] < HELD.get(work, 1) * found["weights_bytes"] + ALLOWANCE
