"""Limits of processes that read what strangers made: each ends the process, and tells why."""

import os
import sys
import textwrap

import pytest

import transact as ta
from tests.conftest import processes_alone
from tests.peaks import growth
from transact.runtime import isolated_process
from transact.runtime.isolated_process import IsolatedProcessFailed, Limits

LIMITS = Limits(memory_bytes=200_000_000, output_characters=1_000_000)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")


def ran(tmp_path, lines: str, *, seconds: float = 60, **settings) -> dict:
    """What comes of a script whose answer is made by these lines."""
    body = textwrap.indent(lines, "    ")
    (tmp_path / "script.py").write_text(f"import os, sys\n\ndef answer(request, tell):\n{body}\n")
    return isolated_process.run(tmp_path / "script.py", {}, ta.NO_PROGRESS, seconds=seconds, limits=LIMITS, **settings)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("x = bytearray(10**9)", "MemoryError|ended without a message"),
        ("import threading; threading.stack_size(2**30); threading.Thread(target=print).start()", "can't start new"),
        ("os.abort()", "killed by SIGABRT"),
        ("tell({'progress': [0, 1, 'x' * 2_000_000]})", "it answered more than 1,000,000 characters"),
        ("while True: tell({'progress': [0, 1, 'x' * 1000]})", "it answered more than"),
        ("while True: sys.stderr.write('x' * 100_000)", "File too large|SIGXFSZ|x{20}"),
    ],
)
def test_what_is_too_much_ends_the_process(tmp_path, lines, said):
    with growth() as grown, pytest.raises(IsolatedProcessFailed, match=said):
        ran(tmp_path, lines)
    assert grown() < 50_000_000
    assert not processes_alone()


def test_time_of_the_processor_counts_as_well(tmp_path):
    with pytest.raises(IsolatedProcessFailed, match="no answer within 1 seconds"):
        ran(tmp_path, "while True: pass", seconds=1)


def test_tokens_of_the_environment_are_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    answer = ran(tmp_path, "return dict(os.environ)", environment={"TOLD": "1"})
    assert answer["TOLD"] == "1" and answer["PATH"] == os.environ["PATH"]
    assert "hf_secret" not in answer.values()


def test_parts_come_before_the_answer(tmp_path):
    parts = []
    lines = "for n in range(100): tell({'part': n})\nreturn {}"
    assert ran(tmp_path, lines, take=parts.append) == {}
    assert parts == list(range(100))
