"""Runs one of our scripts in a fresh process that this package cannot reach, and that can be stopped.

A thread cannot be stopped while it waits for a network or for torch, and it shares everything that this process has
imported or patched. The script is a file with a function `answer(request, tell)`; request and answers pass as JSON
(`transact.runtime.child_protocol`).

What strangers made is read under `Limits`: a native parser that fills memory, loops or aborts takes its own process
with it and nothing else.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from transact.progress import NO_PROGRESS, Progress
from transact.runtime import child_protocol

_POLL_SECONDS = 0.1
_LINES_AHEAD = 16
"""Lines that are read before they are asked for; a process that says more waits."""
_LEAVING_SECONDS = 5.0
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception): ")
_FILE_BYTES = 1 << 20
"""Of a file that a limited process writes: there is only what it says on standard error."""
_SHARED = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
"""What a limited process is told of the environment; tokens are not among it."""


class IsolatedProcessFailed(Exception):
    """The process gave no answer; the text says why, in its own last words or as the time that it had."""


@dataclass(frozen=True)
class Limits:
    """What a process may take that reads what strangers made; beyond it the process is ended.

    `memory_bytes` of its own (heaps and stacks, not shared libraries; Linux alone enforces it); `output_characters` of
    all that it answers; `processor_seconds` at work, None: as many as it may take in all.
    """

    memory_bytes: int
    output_characters: int
    processor_seconds: float | None = None


_heeded: ContextVar[Progress] = ContextVar("heeded", default=NO_PROGRESS)


@contextmanager
def heeding(progress: Progress) -> Iterator[None]:
    """For this block, `progress` is asked while a process is waited for that was given no other, and may raise."""
    token = _heeded.set(progress)
    try:
        yield
    finally:
        _heeded.reset(token)


def heeded(done: int, total: int, unit: str) -> None:
    """The `Progress` of the innermost `heeding`."""
    _heeded.get()(done, total, unit)


def run(
    script: Path,
    request: Mapping,
    progress: Progress,
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    python: str | Path | None = None,
    limits: Limits | None = None,
    take: Callable[[Any], None] | None = None,
) -> dict:
    """The script's answer to `request`; `python` is the interpreter that runs it, this one unless given.

    The process is killed after `seconds`, and as soon as `progress` raises; it is called about every tenth of a
    second. `take` is given the parts that come before the answer. Raises `IsolatedProcessFailed`, and whatever
    `progress` and `take` raise.
    """
    at_work = seconds if limits is None or limits.processor_seconds is None else limits.processor_seconds
    most = () if limits is None else (limits.memory_bytes, max(1, int(at_work)), _FILE_BYTES)
    variables = os.environ if limits is None else {name: os.environ[name] for name in _SHARED if name in os.environ}
    # -P and an empty working directory keep the caller's folder off the path of imports
    with tempfile.TemporaryDirectory(prefix="transact-alone-") as place, tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [python or sys.executable, "-P", child_protocol.__file__, str(script), *map(str, most)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, cwd=place,
            env={**variables, **(environment or {})}, text=True, encoding="utf-8",
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None, "both are pipes"
        try:
            lines, reader = _lines(child.stdout, None if limits is None else limits.output_characters)
            try:
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended before it read; what it said tells why
            answer = _answer(lines, progress, seconds, take)
            killed_by = None if answer is not None else _signal(child)
        finally:
            child.kill()
            child.wait()
            _end(reader, lines)
            child.stdout.close()
        if killed_by == "SIGXCPU":
            raise IsolatedProcessFailed(f"it gave no answer within {at_work:,.0f} seconds")
        if killed_by is not None:
            raise IsolatedProcessFailed(f"it was killed by {killed_by}, perhaps for want of memory")
        if answer is None:
            raise IsolatedProcessFailed(_last_words(said))
        return answer


def _lines(stream: IO[str], most: int | None) -> tuple[queue.Queue, threading.Thread]:
    """The lines as a thread reads them, then None; an `IsolatedProcessFailed` where they are longer than `most`."""
    read: queue.Queue = queue.Queue(_LINES_AHEAD)

    def follow() -> None:
        left = most
        try:
            while line := stream.readline(-1 if left is None else left + 1):
                if left is not None:
                    left -= len(line)
                    if left < 0:
                        read.put(IsolatedProcessFailed(f"it answered more than {most:,} characters"))
                        return
                read.put(line)
        except ValueError:
            pass  # closed under the reader, as the process was killed
        read.put(None)

    reader = threading.Thread(target=follow, name="alone", daemon=True)
    reader.start()
    return read, reader


def _end(reader: threading.Thread, lines: queue.Queue) -> None:
    """Let the reader of a process that has ended come to its end, wherever it waits."""
    until = time.monotonic() + _LEAVING_SECONDS
    while reader.is_alive() and time.monotonic() < until:
        try:
            lines.get(timeout=_POLL_SECONDS / 10)
        except queue.Empty:
            continue


def _answer(lines: queue.Queue, progress: Progress, seconds: float, take: Callable[[Any], None] | None) -> dict | None:
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
        if isinstance(line, IsolatedProcessFailed):
            raise line
        told = json.loads(line)
        if "answer" in told:
            return told["answer"]
        if "part" in told:
            assert take is not None, "a script tells parts only to those who take them"
            take(told["part"])
        else:
            latest = tuple(told["progress"])
    raise IsolatedProcessFailed(f"it gave no answer within {seconds:,.0f} seconds")


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
