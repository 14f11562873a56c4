"""What is decided does not hang on the number of threads, each tried in a process of its own."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

DECIDED = """
import json, sys
import torch
import transact as ta
torch.set_num_threads(int(sys.argv[1]))
loaded = ta.load("bundled", dtype="float32")
rows = ta.CalibrationSet.from_model(loaded, num_samples=24, seq_len=96, seed=3)
# ties that nothing but rounding could decide: the same samples again, cut shorter, and tokens that are repeated
again = [list(row[:-8]) for row in rows.rows() if len(row) > 16]
calibration = ta.CalibrationSet.from_sequences([*map(list, rows.rows()), *again, [9] * 40, [9] * 20], name="own")
statistics = ta.observe(loaded, calibration, gram=True, top_k=4)
target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
plans = [ta.make_plan(ta.score(loaded, statistics, metric=name), loaded.spec, target)
         for name in ("transact", "wanda", "fluctuation", "magnitude", "random")]
plans.append(ta.search_plan(loaded, statistics, target))
peaks = [*statistics.head_peaks, *statistics.channel_peaks]
print(json.dumps({
    "own text": [list(row) for row in rows.rows()],
    "plans": [json.loads(plan.to_json())["layers"] for plan in plans],
    "samples": [each.samples.tolist() for each in peaks],
    "positions": [each.positions.tolist() for each in peaks],
    "greedy": ta.generate(loaded, "One day"),
    "sampled": ta.generate(loaded, "One day", temperature=1.0, seed=1),
}))
"""


@pytest.mark.long
def test_one_and_two_threads_decide_the_same():
    decided = {}
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", DECIDED, threads], cwd=ROOT, capture_output=True, text=True, timeout=1800
        )
        assert done.returncode == 0, done.stderr
        decided[threads] = json.loads(done.stdout.splitlines()[-1])
    for what, value in decided["1"].items():
        assert decided["2"][what] == value, what
