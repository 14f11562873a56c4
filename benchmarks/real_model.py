"""How much is lost without training on a real language model, beside peers that refit too.

    python -m benchmarks.real_model --model FOLDER [--methods obs,search-best] [--sizes 25,50] [--tasks] [--docs]

- Model: SmolLM2-135M-Instruct, as ../shared/real_models/fetch.py makes it (dequantised from Q4_1), in float32; any
  other stock folder will do. Methods: `benchmarks.peers`.
- Calibration: 128 web documents (C4), each cut at 512 tokens; documents that are shorter are left out. Perplexity:
  WikiText-2 test in contiguous windows of 512 tokens, the first 32 of them (`--windows all`). No BOS, as the model's
  tokenizer adds none.
- `--tasks`: LAMBADA (accuracy of the last word), PIQA, ARC-easy and OpenBookQA (accuracy by length-normalised
  likelihood), zero-shot, the first 500 documents of each. *Above chance* is (accuracy − chance) / (1 − chance), chance
  being the mean of 1 / choices over these documents, and 0 for LAMBADA.
- Size: the share of the *prunable* parameters that goes, those of attention's and MLP's projections; neither
  embeddings nor norms. FLAP's biases come on top of its size. ShortGPT removes as many layers as come nearest.
- Split between head groups and channels: SmolLM2's three head groups a layer cannot be cut by a quarter. At each size
  all splits are tried once with TransAct + least squares, ridge 0.001, and all methods of equal widths get the one
  with the lowest perplexity on the measured text, to the peers' advantage. SlimGPT keeps its head groups and lets its
  channels follow the schedule.
- Time: from finished statistics to the pruned model; peak: by how much the process grew meanwhile.

Every cell is written to results/real_model.json at once and skipped by a later run, unless `--again` is given or the
method's `version` was changed; so a run may be stopped at any moment. `--docs` writes the table of a whole protocol
between the marks of docs/benchmarks.md.
"""

import argparse
import contextlib
import json
import statistics as mathematics
import sys
import time
from functools import cached_property
from pathlib import Path

import torch

import transact as ta
from benchmarks.cells import DENSE, Cell, Protocol, Record, details, missing, overview, rows_of
from benchmarks.harness import RESULTS, forget_peak, status_bytes, write_between
from benchmarks.peers import METHODS, SPLIT_BY, Method, Request
from transact.runtime.memory import return_freed

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
TASKS = DATA / "tasks"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
MARK = "real model"
SIZES = (15.0, 25.0, 37.5, 50.0)
WINDOW = 512
TASK_METRICS = {"lambada": "acc", "piqa": "acc_norm", "arc_easy": "acc_norm", "openbookqa": "acc_norm"}
"""File of each task -> what counts as its accuracy."""


class Bench:
    """A model with its texts; what takes long is made when a cell needs it."""

    def __init__(self, loaded: ta.LoadedModel, calibration: ta.CalibrationSet, evaluation: ta.EvaluationSet):
        self.loaded = loaded
        self.calibration = calibration
        self.evaluation = evaluation
        spec = loaded.spec
        self.prunable = spec.num_parameters - spec.fixed_parameters
        self.protocol = Protocol(
            model=loaded.fingerprint,
            samples=calibration.num_samples,
            seq_len=max(calibration.lengths),
            windows=evaluation.num_samples,
            window=max(evaluation.lengths),
        )

    @classmethod
    def of_files(cls, model: Path, samples: int, seq_len: int, windows: int | None) -> "Bench":
        loaded = ta.load(str(model), dtype="float32")
        lines = (DATA / "c4_calibration.jsonl").read_text(encoding="utf-8").splitlines()
        calibration = ta.CalibrationSet.from_texts(
            [json.loads(line)["text"] for line in lines], loaded.tokenizer,
            num_samples=samples, seq_len=seq_len, min_tokens=seq_len, name="C4",
        )  # fmt: skip
        text = (DATA / "wikitext2_test.raw").read_text(encoding="utf-8")
        evaluation = ta.EvaluationSet.from_document(text, loaded.tokenizer, seq_len=WINDOW, name="WikiText-2 test")
        return cls(loaded, calibration, evaluation if windows is None else evaluation.first(windows))

    @cached_property
    def statistics(self) -> ta.ActivationStatistics:
        return self._observed(gram=True)

    @cached_property
    def gradients(self) -> ta.ActivationStatistics:
        """Statistics with Taylor scores; apart, as their backward passes take longer than all the rest."""
        return self._observed(taylor=True)

    def _observed(self, **options: bool) -> ta.ActivationStatistics:
        started = time.perf_counter()
        statistics = ta.observe(self.loaded, self.calibration, **options)
        sys.stderr.write(f"observed {', '.join(options)} in {time.perf_counter() - started:.0f} s\n")
        return statistics

    def budget(self, size: float) -> int:
        """The most parameters in all at that size."""
        return self.loaded.spec.fixed_parameters + round(self.prunable * (1 - size / 100))


class Runner:
    """Measures the cells that the record lacks, or all of them `again`; on task documents where `documents` > 0."""

    def __init__(self, bench: Bench, record: Record, *, again: bool = False, documents: int = 0):
        self.bench = bench
        self.record = record
        self.again = again
        self.documents = documents

    def dense(self) -> Cell:
        method = Method(DENSE, DENSE, lambda request: request.loaded)
        return self._recorded(method, 0.0, self.documents) or self._measured(method, 0.0, None, self.documents)

    def cell(self, method: Method, size: float) -> Cell:
        found = None if self.again else self._recorded(method, size, self.documents)
        if found is not None:
            return found
        # a method that decides on its split itself reads no more of a target than its parameters
        target = self.split(size) if method.splits else self._splits(size)[-1]
        return self._measured(method, size, target, self.documents)

    def split(self, size: float) -> ta.PruningTarget:
        """The target of all methods of equal widths, chosen as the module's docstring says."""
        targets = self._splits(size)
        losses = []
        for target in targets:
            trial = Method(f"split {groups_of(target)}", "", SPLIT_BY)
            cell = self._recorded(trial, size, 0) or self._measured(trial, size, target, 0)
            losses.append(cell.perplexity)
        return targets[losses.index(min(losses))]

    def _splits(self, size: float) -> tuple[ta.PruningTarget, ...]:
        return ta.PruningTarget.splits(self.bench.loaded.spec, self.bench.budget(size))

    def _recorded(self, method: Method, size: float, documents: int) -> Cell | None:
        cell = self.record.cells().get((method.key, method.version, size, self.bench.protocol))
        return cell if cell is not None and (not documents or cell.documents == documents) else None

    def _measured(self, method: Method, size: float, target: ta.PruningTarget | None, documents: int) -> Cell:
        bench, dense = self.bench, self.bench.loaded
        seconds, peak, pruned = 0.0, 0, dense
        if target is not None:
            statistics = bench.gradients if method.gradients else bench.statistics
            request = Request(dense, statistics, target, bench.budget(size), size / 100)
            return_freed()
            forget_peak()
            held, started = status_bytes("VmRSS"), time.perf_counter()
            pruned = method.make(request)
            seconds, peak = time.perf_counter() - started, status_bytes("VmHWM") - held
        cell = Cell(
            method=method.key,
            version=method.version,
            size=size,
            protocol=bench.protocol,
            perplexity=ta.perplexity(pruned, bench.evaluation),
            parameters=pruned.spec.num_parameters,
            removed=(dense.spec.num_parameters - pruned.spec.num_parameters) / bench.prunable,
            seconds=seconds,
            peak_bytes=peak,
            split=groups_of(target) if target is not None and method.splits else None,
            threads=torch.get_num_threads(),
            tasks=accuracies(pruned, documents) if documents else {},
            documents=documents,
        )
        self.record.add(cell)
        sys.stderr.write(f"{method.key} at {size:g} %: perplexity {cell.perplexity:.2f}, {seconds:.1f} s\n")
        return cell


def groups_of(target: ta.PruningTarget) -> int:
    groups = target.keep_head_groups
    return groups if isinstance(groups, int) else max(groups)


def accuracies(loaded: ta.LoadedModel, documents: int) -> dict[str, tuple[float, float]]:
    """Accuracy and chance of each task."""
    with contextlib.chdir(TASKS):  # the task files name their data relative to it
        names = [f"{task}_local" for task in TASK_METRICS]
        results = ta.evaluate_tasks({"model": loaded}, names, limit=documents, include_path=TASKS)
    found = {(score.task, score.metric): score.value for score in results.scores}
    return {
        task: (float(found[f"{task}_local", metric] or 0.0), chance(task, documents))
        for task, metric in TASK_METRICS.items()
    }


def chance(task: str, documents: int) -> float:
    """What guessing gets on the first documents of a task; nothing where a word is asked for."""
    lines = (TASKS / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()[:documents]
    choices = [json.loads(line).get("choices") for line in lines]
    return mathematics.fmean(1 / len(each) if each else 0.0 for each in choices)


def report(bench: Bench, cells: dict[tuple, Cell], sizes: list[float], methods: list[Method]) -> str:
    """All tables of that protocol, as far as they were measured."""
    protocol = bench.protocol
    dense = cells[DENSE, "1", 0.0, protocol]
    by_size = {size: rows_of(cells, protocol, size, methods) for size in sizes}
    above = "" if dense.above_chance is None else f", tasks {dense.above_chance:.1%} above chance"
    name, whole, prunable = Path(bench.loaded.source).name, dense.parameters / 1e6, bench.prunable / 1e6
    parts = [
        f"**{name}** ({whole:.4g} M parameters, {prunable:.4g} M of them prunable): dense perplexity "
        f"{dense.perplexity:.2f}{above}; calibrated on {protocol.samples} × {protocol.seq_len} tokens of "
        f"{bench.calibration.name}, perplexity on {protocol.windows} windows of {protocol.window} of "
        f"{bench.evaluation.name}. Of methods with several ridges the best at each size counts.",
        overview(by_size),
    ]
    for size, rows in by_size.items():
        splits = {row.cell.split for row in rows if row.cell.split is not None}
        note = "".join(f"; every layer keeps {split} of its head groups, but in FLAP and ShortGPT" for split in splits)
        parts += [f"**{size:g} % removed**{note}", details(rows)]
    return "\n\n".join(parts)


def main() -> None:
    given = options().parse_args()
    sizes = [float(size) for size in given.sizes.split(",")]
    keys = given.methods.split(",") if given.methods else [method.key for method in METHODS]
    unknown = set(keys) - {method.key for method in METHODS}
    if unknown:
        raise SystemExit(f"There is no method {', '.join(sorted(unknown))}. There are {', '.join(_keys())}.")
    bench = Bench.of_files(
        given.model, given.samples, given.seq_len, None if given.windows == "all" else int(given.windows)
    )
    record = Record(given.results)
    runner = Runner(bench, record, again=given.again, documents=given.task_documents if given.tasks else 0)
    runner.dense()
    methods = [method for method in METHODS if method.key in keys]
    for size in sizes:
        for method in methods:
            runner.cell(method, size)
    cells = record.cells()
    sys.stdout.write(report(bench, cells, sizes, methods) + "\n")
    if given.docs:
        absent = missing(cells, bench.protocol, SIZES)
        if absent:
            raise SystemExit(f"The table is not whole; still to be measured: {', '.join(absent)}.")
        write_between(DOCUMENT, MARK, report(bench, cells, list(SIZES), list(METHODS)))


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the folder that fetch.py made")
    parser.add_argument("--methods", default="", help=f"some of {','.join(_keys())} (default: all)")
    parser.add_argument(
        "--sizes", default=",".join(f"{size:g}" for size in SIZES),
        help="per cent of the prunable parameters removed (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, default=128, help="calibration documents (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens of each (default: %(default)s)")
    parser.add_argument("--windows", default="32", help="windows that measure, or 'all' (default: %(default)s)")
    parser.add_argument("--tasks", action="store_true", help="also measure tasks: minutes for every cell")
    parser.add_argument("--task-documents", type=int, default=500, help="of each task (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure what is in the record once more")
    parser.add_argument("--results", type=Path, default=RESULTS / "real_model.json", help="the record's file")
    parser.add_argument("--docs", action="store_true", help="put the whole table into docs/benchmarks.md")
    return parser


def _keys() -> list[str]:
    return [method.key for method in METHODS]


if __name__ == "__main__":
    main()
