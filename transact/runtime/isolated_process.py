"""Runs a script of this package in a fresh process that cannot import the package, and that can be killed.

A thread cannot be stopped while it waits for a network or for torch, and it shares everything that this process has
imported or patched. The script is a file with a function `answer(request, send)`; request and answers pass as JSON
(`transact.runtime.child_protocol`).

Untrusted files are read under `Limits`: a native parser that fills memory, loops or aborts ends its own process alone.
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
"""Lines that are read ahead; a process that writes more waits."""
_EXIT_SECONDS = 5.0
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception): ")
_FILE_BYTES = 1 << 20
"""The largest file that a limited process may write: it writes only its standard error."""
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR")
"""The variables that a limited process inherits; none of them holds a token."""


class IsolatedProcessFailed(Exception):
    """The process gave no answer; the text says why: its last line on standard error, or the time limit."""


@dataclass(frozen=True)
class Limits:
    """The limits of a process that reads untrusted files; beyond them it is killed.

    `memory_bytes` of its own (heaps and stacks, not shared libraries; Linux alone enforces it); `output_characters` of
    all that it answers; `processor_seconds`: of processor time, None for as many as it may take in all.
    """

    memory_bytes: int
    output_characters: int
    processor_seconds: float | None = None


_inherited: ContextVar[Progress] = ContextVar("inherited_progress", default=NO_PROGRESS)


@contextmanager
def progress_for_processes(progress: Progress) -> Iterator[None]:
    """Within this block, processes run with `inherited_progress` call `progress` while they run; it may raise."""
    token = _inherited.set(progress)
    try:
        yield
    finally:
        _inherited.reset(token)


def inherited_progress(done: int, total: int, unit: str) -> None:
    """The `Progress` of the innermost `progress_for_processes`."""
    _inherited.get()(done, total, unit)


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
    """The script's answer to `request`; `python` is the interpreter that runs it, by default this one.

    The process is killed after `seconds`, and as soon as `progress` raises; it is called about every tenth of a
    second. `take` is called with the parts that come before the answer. Raises `IsolatedProcessFailed`, and whatever
    `progress` and `take` raise.
    """
    at_work = seconds if limits is None or limits.processor_seconds is None else limits.processor_seconds
    limit_arguments = () if limits is None else (limits.memory_bytes, max(1, int(at_work)), _FILE_BYTES)
    variables = (
        os.environ if limits is None else {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    )
    # -P and an empty working directory keep the caller's folder off the import path
    with tempfile.TemporaryDirectory(prefix="transact-alone-") as folder, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [python or sys.executable, "-P", child_protocol.__file__, str(script), *map(str, limit_arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder,
            env={**variables, **(environment or {})}, text=True, encoding="utf-8",
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None, "both are pipes"
        try:
            lines, reader = _lines(child.stdout, None if limits is None else limits.output_characters)
            try:
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended before it read; its standard error says why
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
            raise IsolatedProcessFailed(_last_error(errors))
        return answer


def _lines(stream: IO[str], most: int | None) -> tuple[queue.Queue, threading.Thread]:
    """A queue of lines that a thread reads, then None; an `IsolatedProcessFailed` after `most` characters."""
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
    """Empty the queue until the reader of a process that has ended is done: it may wait for room in it."""
    until = time.monotonic() + _EXIT_SECONDS
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
        message = json.loads(line)
        if "answer" in message:
            return message["answer"]
        if "part" in message:
            assert take is not None, "only scripts whose caller takes parts send them"
            take(message["part"])
        else:
            latest = tuple(message["progress"])
    raise IsolatedProcessFailed(f"it gave no answer within {seconds:,.0f} seconds")


def _signal(child: subprocess.Popen) -> str | None:
    """The signal that ended a process whose output has ended; None where it ended by itself."""
    try:
        status = child.wait(timeout=_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return signal.Signals(-status).name if status < 0 else None


def _last_error(errors: IO[bytes]) -> str:
    """The line on standard error that names the last exception, otherwise the last one."""
    errors.seek(0)
    lines = errors.read().decode("utf-8", errors="replace").strip().splitlines()
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines or ["it ended without a message"])[-1].strip()[:500]
