"""Runs one of our scripts in a fresh process that this package cannot reach, and that can be stopped.

A thread cannot be stopped while it waits for a network or for torch, and it shares everything that this process has
imported or patched. The script reads a JSON request from standard input and writes JSON lines to standard output:
`{"progress": [done, total, unit]}` now and then, at last `{"answer": ...}`.
"""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from transact.progress import Progress

_POLL_SECONDS = 0.1
_LEAVING_SECONDS = 5.0
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception): ")
# -P and an empty working directory keep the caller's folder off the path; None in sys.modules makes importing the
# package an error even where PYTHONPATH or site-packages lead to it
_BAR = "import runpy, sys; sys.modules['transact'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"


class AloneFailed(Exception):
    """The process gave no answer; the text says why, in its own last words or as the time that it had."""


def run_alone(
    script: Path,
    request: Mapping,
    progress: Progress,
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    python: str | Path | None = None,
) -> dict:
    """The script's answer to `request`; `python` is the interpreter that runs it, this one unless given.

    The process is killed after `seconds`, and as soon as `progress` raises; it is called about every tenth of a
    second. Raises `AloneFailed`, and whatever `progress` raises.
    """
    with tempfile.TemporaryDirectory(prefix="transact-alone-") as place, tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [python or sys.executable, "-P", "-c", _BAR, str(script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, cwd=place,
            env={**os.environ, **(environment or {})}, text=True, encoding="utf-8",
        )  # fmt: skip
        try:
            lines = _lines(child.stdout)
            try:
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended before it read; what it said tells why
            answer = _answer(lines, progress, seconds)
            killed_by = None if answer is not None else _signal(child)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        if killed_by is not None:
            raise AloneFailed(f"it was killed by {killed_by}, perhaps for want of memory")
        if answer is None:
            raise AloneFailed(_last_words(said))
        return answer


def _lines(stream: IO[str]) -> queue.SimpleQueue:
    """The lines as a thread reads them, and None where they end."""
    read: queue.SimpleQueue = queue.SimpleQueue()

    def follow() -> None:
        try:
            for line in stream:
                read.put(line)
        except ValueError:
            pass  # closed under the reader, as the process was killed
        read.put(None)

    threading.Thread(target=follow, name="alone", daemon=True).start()
    return read


def _answer(lines: queue.SimpleQueue, progress: Progress, seconds: float) -> dict | None:
    """What the process answers; None where it ends without an answer."""
    until = time.monotonic() + seconds
    latest = (0, 1, "steps")
    while time.monotonic() < until:
        progress(*latest)
        try:
            line = lines.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            continue
        if line is None:
            return None
        told = json.loads(line)
        if "answer" in told:
            return told["answer"]
        latest = tuple(told["progress"])
    raise AloneFailed(f"it gave no answer within {seconds:,.0f} seconds")


def _signal(child: subprocess.Popen) -> str | None:
    """The signal that ended a process whose output has ended; None where it went by itself."""
    try:
        status = child.wait(timeout=_LEAVING_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return signal.Signals(-status).name if status < 0 else None


def _last_words(said: IO[bytes]) -> str:
    """The line on standard error that names the last exception, otherwise the last one."""
    said.seek(0)
    lines = said.read().decode("utf-8", errors="replace").strip().splitlines()
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines or ["it ended without a word"])[-1].strip()[:500]
