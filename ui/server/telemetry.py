"""What a host can watch: one line of JSON an event on stderr, and counters since the start.

Neither holds anything that a visitor typed or uploaded: no text, no name of a model or file, no address, no token,
and of an error its class and where it was raised, not its message.
"""

import json
import logging
import sys
import threading
import time
import traceback
from collections import Counter
from datetime import UTC, datetime

import psutil

_OURS = ("ui", "transact")
_events = logging.getLogger(__name__)


def log_to_stderr() -> None:
    """From here on every log record and warning of the process is one line of JSON on stderr.

    Libraries that are loaded by now lose the handlers that they have set up for themselves.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
    for name in _OURS:
        logging.getLogger(name).setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, event, and the event's own fields.

    Records of other libraries may quote what a visitor typed, so only their origin is logged.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if record.name.split(".")[0] in _OURS:
            line |= {"event": record.getMessage(), **getattr(record, "fields", {})}
        else:
            line |= {"event": "library message", "logger": record.name, "at": f"{record.module}:{record.lineno}"}
        if record.exc_info and record.exc_info[1] is not None:
            line |= raised(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def raised(error: BaseException) -> dict:
    """The class of an error and the frames it came through, innermost last; never its message."""
    frames = traceback.extract_tb(error.__traceback__)
    at = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    return {"error": type(error).__name__, "at": at}


class Telemetry:
    """Counters since the start, and events as they happen."""

    def __init__(self):
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._counters: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()

    def add(self, counter: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter; `labels` name the one of its family."""
        with self._lock:
            self._counters[counter, tuple(sorted(labels.items()))] += amount

    def event(self, event: str, **fields) -> None:
        """Log one line; `fields` are numbers and words of ours."""
        _events.info(event, extra={"fields": {name: _short(value) for name, value in fields.items()}})

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Every counter by name and labels."""
        with self._lock:
            return dict(self._counters)

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._began


def resident_bytes() -> int:
    """Memory of this process that lies in RAM."""
    return psutil.Process().memory_info().rss


def _short(value):
    return round(value, 3) if isinstance(value, float) else value
