"""Models larger than memory: time and peak memory of the streamed way against model size, on random weights.

Every piece of work runs in a process of its own, and its peak resident memory is the most that the process ever held,
Python and torch included. Weights are random, bfloat16, in files like a hub model's; they lie in a temporary folder.

- cut: `stream_prune` alone, half of the channels and a quarter of the head groups; beside the time of copying the
  files. Target: LLaMA-2-7B's shape in at most 2 GB and at most twice the time of copying.
- score: `stream_observe` on 16 samples of 256 tokens, then scores. Target: 7B in at most 4 GB.
- repair: the plan cut again with least squares, whose Gram matrices are gathered on the way. Target, of all three: the
  1.1B shape in at most 1.2 GB.
- two processes: the same scoring by two processes that share the samples.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig

import transact as ta
from benchmarks.harness import publish, table
from transact.streaming.shard_writer import ShardWriter

SAMPLES, SEQ = 16, 256
WORK = ("cut", "score", "repair")
_BASE_BYTES = 400_000_000
"""What Python, torch, transformers and this project take before any weight is read (measured)."""


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    groups: int
    channels: int

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.groups,
            intermediate_size=self.channels,
            vocab_size=32000,
            max_position_embeddings=4096,
            dtype="bfloat16",
            architectures=["LlamaForCausalLM"],
        )


SHAPES = {
    "0.1B": Shape(768, 12, 12, 12, 2048),
    "0.3B": Shape(1024, 24, 16, 16, 2816),
    "1.1B": Shape(2048, 22, 32, 4, 5632),
    "3B": Shape(3200, 26, 32, 32, 8640),
    "7B": Shape(4096, 32, 32, 32, 11008),
}
LARGE = Shape(8192, 80, 64, 8, 28672)
"""LLaMA-2-70B."""


def write_random(shape: Shape, folder: Path) -> None:
    """A checkpoint of random weights, tensor by tensor."""
    folder.mkdir()
    config = shape.config()
    config.save_pretrained(folder)
    spec = ta.ModelSpec.from_config(config)
    shapes = dict(spec.tensor_shapes()) | {"lm_head.weight": (spec.vocab_size, spec.hidden_size)}
    norms = ("input_layernorm", "post_attention_layernorm")
    shapes |= {f"model.layers.{i}.{norm}.weight": (shape.hidden,) for i in range(shape.layers) for norm in norms}
    shapes["model.norm.weight"] = (shape.hidden,)
    writer = ShardWriter(folder, shapes, torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for name, size in shapes.items():
        if "norm" in name:
            tensor = torch.ones(size, dtype=torch.bfloat16)
        else:
            tensor = torch.empty(size, dtype=torch.bfloat16).normal_(std=size[-1] ** -0.5, generator=generator)
        writer.write(name, [tensor])
    writer.finish()


def work(name: str, model: Path, output: Path) -> dict:
    """In this process."""
    torch.distributed.init_process_group("gloo") if "RANK" in os.environ else None
    started = time.perf_counter()
    loaded = ta.load_streamed(str(model), dtype="float32")
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    if name == "cut":
        plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target)
        started = time.perf_counter()
        ta.stream_prune(loaded, plan, output)
    else:
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(3, loaded.spec.vocab_size, (SAMPLES, SEQ), generator=generator)
        calibration = ta.CalibrationSet.from_token_ids(ids, name="random")
        statistics = ta.stream_observe(loaded, calibration, gram="by_layer")
        plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target)
        if name == "repair":
            started = time.perf_counter()
            ta.stream_prune(loaded, plan, output, compensation="least_squares", statistics=statistics)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return {"work": name, "seconds": time.perf_counter() - started, "peak_bytes": peak}


def in_its_own_process(name: str, model: Path, output: Path, processes: int = 1) -> dict:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *launcher, "benchmarks.scale", "--do", name, "--on", str(model), str(output)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(output, ignore_errors=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return max(rows, key=lambda row: row["peak_bytes"])


def copied(model: Path, output: Path) -> dict:
    """As `cp` and `sync` would, in this process; what it holds does not count."""
    started = time.perf_counter()
    output.mkdir()
    for file in model.glob("*.safetensors"):
        with file.open("rb") as source, (output / file.name).open("wb") as target:
            shutil.copyfileobj(source, target, 16 << 20)
            target.flush()
            os.fsync(target.fileno())
    seconds = time.perf_counter() - started
    shutil.rmtree(output)
    return {"work": "copy the files", "seconds": seconds, "peak_bytes": None}


def measured(name: str, folder: Path, parts: list[str], two: bool, rounds: int) -> list[dict]:
    """Each piece of work in turn, so many rounds: the median of its seconds, the most of its memory."""
    model, output = folder / "model", folder / "out"
    write_random(SHAPES[name], model)
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    runs = []
    for _ in range(rounds):
        copy = [copied(model, output)] if "cut" in parts else []
        runs.append([*copy, *(in_its_own_process(part, model, output) for part in parts)])
    rows = [
        same[0] | {
            "seconds": statistics.median(run["seconds"] for run in same),
            "peak_bytes": max((run["peak_bytes"] for run in same if run["peak_bytes"]), default=None),
        }
        for same in zip(*runs, strict=True)
    ]  # fmt: skip
    if two:
        rows.append(in_its_own_process("score", model, output, 2) | {"work": "score, two processes"})
    shutil.rmtree(model)
    threads = torch.get_num_threads()
    return [{"shape": name, "checkpoint_bytes": size, "threads": threads, **row} for row in rows]


def on_paper(rows: list[dict]) -> list[list[str]]:
    """70B from 7B: time follows the parameters, memory beyond the base one layer, or in repair its Gram matrices."""
    spec, large = (ta.ModelSpec.from_config(shape.config()) for shape in (SHAPES["7B"], LARGE))
    layer = large.layer_parameters(large.layers[0]) / spec.layer_parameters(spec.layers[0])
    gram = (LARGE.channels / SHAPES["7B"].channels) ** 2
    lines = []
    for row in rows:
        if row["shape"] == "7B" and row["peak_bytes"] is not None:
            seconds = row["seconds"] * large.num_parameters / spec.num_parameters
            peak = _BASE_BYTES + (row["peak_bytes"] - _BASE_BYTES) * (gram if row["work"] == "repair" else layer)
            lines.append(_line("70B, on paper", 2 * large.num_parameters, row["work"], seconds, peak))
    return lines


def _line(shape: str, size: float, work: str, seconds: float, peak: float | None) -> list[str]:
    memory = "" if peak is None else f"{peak / 1e9:.2f}"
    return [shape, f"{size / 1e9:.1f}", work, f"{seconds:.0f}", memory]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="which (default: %(default)s)")
    parser.add_argument("--work", default=",".join(WORK), help="what to do with them (default: %(default)s)")
    parser.add_argument("--two-processes", action="store_true", help="also score in two processes")
    parser.add_argument("--rounds", type=int, default=1, help="times that all is done (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a temporary folder)")
    parser.add_argument("--do", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--on", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        sys.stdout.write(json.dumps(work(given.do, *given.on)) + "\n")
        return
    rows = []
    for name in given.shapes.split(","):
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as folder:
            rows += measured(name, Path(folder), given.work.split(","), given.two_processes, given.rounds)
    columns = ("shape", "checkpoint_bytes", "work", "seconds", "peak_bytes")
    lines = [_line(*(row[column] for column in columns)) for row in rows]
    text = table(["shape", "files GB", "work", "seconds", "peak GB"], [*lines, *on_paper(rows)])
    figures = {f"{row['shape']}, {row['work']}": row for row in rows}
    publish("scale", "Larger than memory", text, figures)


if __name__ == "__main__":
    main()
