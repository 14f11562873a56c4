"""The command line ended by a signal: no half of a checkpoint and nothing temporary is left."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.conftest import ROOT


def default_signals() -> None:
    """A shell that starts tests in the background has them ignored."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_the_proof_leaves_nothing(tmp_path, number):
    temporary, made = tmp_path / "temporary", tmp_path / "made"
    temporary.mkdir()
    made.mkdir()
    command = [
        sys.executable, "-m", "transact", "prune", "--model", "bundled", "--calibration",
        "assets/samples/mixed.jsonl", "--num-samples", "4", "--seq-len", "32", "--attention-sparsity", "0.25",
        "--mlp-sparsity", "0.5", "--output", str(made / "pruned"), "--quiet",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"TMPDIR": str(temporary)}, preexec_fn=default_signals,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    until = time.monotonic() + 180
    while not list(temporary.glob("transact-alone-*")):  # the checkpoint is whole by then, and not yet in its place
        assert process.poll() is None and time.monotonic() < until, process.stdout.read()
        time.sleep(0.02)
    assert list(made.iterdir())
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said
    assert not list(temporary.iterdir()) and not list(made.iterdir())
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
