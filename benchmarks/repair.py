"""What repair costs: beside the forward passes that it needs, and for one layer in the shape of a 7 B model.

    python -m benchmarks.repair [--tokens 32768] [--only one-pass,layer]

- `one-pass`: observing with Gram matrices, planning, cutting and least squares on a random Llama of 135 M parameters;
  `best`: the plan search and the repair that re-observes, the same. Forward passes are counted, layer by layer, and
  timed without hooks; target: at most 2 times the time of those that were needed.
- `layer`: least squares for `o_proj` and `down_proj` of one layer with hidden size 4,096 and 11,008 channels, half of
  each kept; and what `best` does with its MLP, the search for the channels and their solution. Each in a process of
  its own; target: 60 s and 4 GB at its peak on 2 cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

import transact as ta
from benchmarks.harness import publish, table
from benchmarks.speed import llama_135m, plain_forward, random_text
from transact.repair.ridge import NormalEquations, least_squares

PARTS = ("one-pass", "best", "layer")
SEQ = 512
HIDDEN, CHANNELS = 4096, 11008
GRAM_RANK = 512


@dataclass
class Passes:
    """Tokens that went through any decoder layer, the copies of the model included."""

    tokens: int = 0


@contextmanager
def counted(loaded: ta.LoadedModel) -> Iterator[Passes]:
    """Count the layers' tokens; a copy of the model carries the hooks along."""
    passes = Passes()

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        passes.tokens += inputs[0].shape[:-1].numel()

    handles = [layer.register_forward_pre_hook(count) for layer in loaded.decoder_layers]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def one_pass(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, target: ta.PruningTarget) -> None:
    statistics = ta.observe(loaded, calibration, gram=True)
    plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target)
    ta.prune(loaded, plan, compensation="least_squares", statistics=statistics)


def best(loaded: ta.LoadedModel, calibration: ta.CalibrationSet, target: ta.PruningTarget) -> None:
    statistics = ta.observe(loaded, calibration, gram=True)
    plan = ta.search_plan(loaded, statistics, target)
    ta.prune(loaded, plan, compensation="best", statistics=statistics)


def whole_model(name: str, loaded: ta.LoadedModel, calibration: ta.CalibrationSet, rounds: int) -> dict:
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=1 / 3, mlp=0.5)
    work = {"one-pass": one_pass, "best": best}[name]
    forward, repair = [], []
    for _ in range(rounds):  # in alternation; the first round also warms up, so the faster one counts
        started = time.perf_counter()
        plain_forward(loaded, calibration)
        forward.append(time.perf_counter() - started)
        started = time.perf_counter()
        with counted(loaded) as passes:
            work(loaded, calibration, target)
        repair.append(time.perf_counter() - started)
    needed = passes.tokens / (calibration.num_tokens * loaded.spec.num_hidden_layers)
    return {
        "repair": name,
        "tokens": calibration.num_tokens,
        "forward_seconds": min(forward),
        "forward_passes": needed,
        "seconds": min(repair),
        "ratio": min(repair) / (needed * min(forward)),
    }


def gram_of(channels: int, generator: torch.Generator) -> torch.Tensor:
    factor = torch.randn(channels, GRAM_RANK, dtype=torch.float64, generator=generator)
    gram = factor @ factor.T
    gram.diagonal().add_(1.0)
    return gram


def least_squares_of_both(generator: torch.Generator) -> Iterator[Callable[[], torch.Tensor]]:
    for channels in (HIDDEN, CHANNELS):
        weight, gram = torch.randn(HIDDEN, channels, generator=generator), gram_of(channels, generator)
        kept = torch.randperm(channels, generator=generator)[: channels // 2].sort().values
        yield partial(least_squares, weight, gram, kept)


def search_and_solution(generator: torch.Generator) -> Iterator[Callable[[], torch.Tensor]]:
    weight, gram = torch.randn(HIDDEN, CHANNELS, generator=generator), gram_of(CHANNELS, generator)
    normal = NormalEquations.of(gram, weight.double() @ gram, weight)
    yield lambda: normal.solved(torch.tensor(normal.obs_select(CHANNELS // 2)))


LAYER = {"least squares": least_squares_of_both, "search and solution, MLP": search_and_solution}


def single_layer(work: str) -> dict:
    """In this process: time of the work, and the most memory that the process ever held."""
    seconds = 0.0
    for solve in LAYER[work](torch.Generator().manual_seed(0)):
        started = time.perf_counter()
        solution = solve()
        seconds += time.perf_counter() - started
        if not bool(solution.isfinite().all()):
            raise SystemExit("The solution holds NaN or infinity.")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {"work": work, "seconds": seconds, "peak_bytes": peak, "threads": torch.get_num_threads()}


def in_its_own_process(work: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.repair", "--single-layer", work]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32768, help="calibration tokens (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="of which the fastest counts (default: %(default)s)")
    parser.add_argument("--only", default=",".join(PARTS), help="which parts (default: %(default)s)")
    parser.add_argument("--single-layer", choices=LAYER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.single_layer:
        sys.stdout.write(json.dumps(single_layer(given.single_layer)))
        return
    parts, rows, figures = given.only.split(","), [], {}
    if {"one-pass", "best"} & set(parts):
        loaded = llama_135m(torch.float32)
        calibration = random_text(loaded, given.tokens // SEQ, SEQ)
        figures["whole_model"] = [
            whole_model(name, loaded, calibration, given.rounds) for name in ("one-pass", "best") if name in parts
        ]
        rows.append(
            table(
                ["llama-135m", "tokens", "forward s", "forward passes needed", "whole work s", "work / passes"],
                [
                    [
                        row["repair"],
                        f"{row['tokens']:,}",
                        f"{row['forward_seconds']:.1f}",
                        f"{row['forward_passes']:.2f}",
                        f"{row['seconds']:.1f}",
                        f"{row['ratio']:.2f}",
                    ]
                    for row in figures["whole_model"]
                ],
            )
        )
    if "layer" in parts:
        figures["layer"] = [in_its_own_process(work) for work in LAYER]
        rows.append(
            table(
                ["one layer of 4,096 x 11,008, half kept", "threads", "seconds", "peak GB"],
                [
                    [row["work"], str(row["threads"]), f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}"]
                    for row in figures["layer"]
                ],
            )
        )
    publish("repair", "Repair", "\n\n".join(rows), figures)


if __name__ == "__main__":
    main()
