"""What benchmarks share: timing in alternation, peak memory, tables, and a record of the machine and versions."""

import contextlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

RESULTS = Path(__file__).with_name("results")


def alternate(functions: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each function, called in turn, `rounds` times after one round to warm up.

    The order turns with every round, so that none is always the first after the others' cache misses.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = time.perf_counter()
            functions[name]()
            if turn:
                taken[name].append(time.perf_counter() - started)
    return taken


def ratio(taken: dict[str, list[float]], above: str, below: str) -> float:
    """Median over the rounds of the two times' ratio within a round."""
    return statistics.median(a / b for a, b in zip(taken[above], taken[below], strict=True))


def median(taken: list[float]) -> float:
    return statistics.median(taken)


def status_bytes(name: str) -> int:
    """Bytes of this process, as the system counts them (Linux)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def forget_peak() -> None:
    """Have the system count the peak from now on; where it won't, that of loading counts too."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def machine() -> dict[str, str | int]:
    """What figures depend on beside the code."""
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def write_between(document: Path, mark: str, text: str) -> None:
    """Replace what stands between the lines <!-- mark --> and <!-- /mark -->; refuses a document without them."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{document.name} has no lines {begin} and {end} for the tables to stand between.")
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def publish(name: str, title: str, text: str, figures: dict) -> None:
    """Print the table and write `results/<name>.json`; figures of parts that were not run stay there."""
    sys.stdout.write(f"\n{title}\n\n{text}\n")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**before, "machine": machine(), **figures}, indent=1) + "\n")
