"""What benchmarks share: timing in alternation, tables, and a record of the machine and versions."""

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


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def publish(name: str, title: str, text: str, figures: dict) -> None:
    """Print the table and write `results/<name>.json`; figures of parts that were not run stay there."""
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    sys.stdout.write(f"\n{title}\n\n{text}\n")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**before, "machine": machine, **figures}, indent=1) + "\n")
