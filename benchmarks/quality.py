"""How much is lost without training: every peer's score and repair beside ours, at equal kept parameters.

    python -m benchmarks.quality [--rows 0,4] [--models stories260K] [--quick] [--docs]

- Models: stories260K (development data, left out where it is absent) and the bundled model, at the five sizes of
  the development data's table and at the same fractions of the bundled model.
- gap = ln(perplexity / dense perplexity); ratio = gap / the smallest gap among all peers at that size. Peers are all
  methods without a least-squares repair, whatever their layers' widths.
- FLAP as published (AL-AM) shares a number of parameters between heads and channels of all layers by itself; it is
  given those that the size of the column comes to.
- Time: from finished statistics to the pruned model.

A whole run writes results/quality.json and the picture assets/quality.svg, and with --docs the tables between the lines
<!-- quality --> and <!-- /quality --> of docs/benchmarks.md; part of one only prints.
"""

import argparse
import json
import math
import statistics as mathematics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import transact as ta
from benchmarks.harness import publish, table, write_between
from benchmarks.pareto import Line, Panel, picture

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SAMPLES = ROOT / "assets" / "samples"
PICTURE = ROOT / "assets" / "quality.svg"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
STORIES, BUNDLED = "stories260K", "bundled"
GROUPS, CHANNELS = 4, 172
SIZES = ((4, 137), (4, 86), (3, 172), (3, 137), (2, 86))
"""Head groups of 4 and channels of 172 that each layer of stories260K keeps."""
TOLERANCE = 0.005
"""Kept parameters of any two methods in a row differ by at most this share, biases that a repair adds left out."""
RANDOM_SEEDS = 3
QUICK_TEXTS = 32
SPLIT_SAMPLES = 32
NOTE = (
    "SliceGPT's rotation is left out: it cuts the residual stream itself, leaves a dense adapter in every block and so "
    "no stock checkpoint, and steps of one hidden dimension (1.5 % of these small models) miss equal sizes. The biases "
    "that FLAP's repair adds come on top of the parameters kept: up to 0.7 % here, as stock classes take them in all "
    "projections of a module or in none."
)


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with the text that scores and the text that measures; `statistics` hold all that any method needs."""

    name: str
    loaded: ta.LoadedModel
    calibration: ta.CalibrationSet
    statistics: ta.ActivationStatistics
    evaluation: ta.EvaluationSet
    sizes: tuple[tuple[int, int], ...]
    dense_perplexity: float
    dense_probes: dict[str, float]
    probe_items: int | None


@dataclass(frozen=True)
class Method:
    """`make` gives the pruned models whose log perplexities are averaged: one, or one per random seed.

    Not `drawn`: chance, which would squeeze all others into a corner, and layers of different widths, but for FLAP as
    published.
    """

    name: str
    make: Callable[[Subject, ta.PruningTarget], Iterable[ta.LoadedModel]]
    is_peer: bool = True
    kind: str = "peer"
    drawn: bool = True


@dataclass(frozen=True)
class Result:
    """One method at one size; `ratio` is None until its row is complete, and where a peer loses nothing."""

    model: str
    method: str
    keep_head_groups: int
    keep_channels: int
    perplexity: float
    gap: float
    parameters_kept: float
    seconds: float
    probes: dict[str, float]
    ratio: float | None = None


def by_metric(
    metric: str, *, compensation: str = "none", allocation: str = "uniform", seeds: int = 1
) -> Callable[[Subject, ta.PruningTarget], Iterable[ta.LoadedModel]]:
    def make(subject: Subject, target: ta.PruningTarget) -> Iterable[ta.LoadedModel]:
        for seed in range(seeds):
            scores = ta.score(subject.loaded, subject.statistics, metric=metric, seed=seed)
            plan = ta.make_plan(scores, subject.loaded.spec, target, allocation=allocation)
            yield ta.prune(subject.loaded, plan, compensation=compensation, statistics=subject.statistics)

    return make


def split_searched(subject: Subject, target: ta.PruningTarget) -> Iterable[ta.LoadedModel]:
    """As many parameters as the target gives, whatever its split between attention and MLP."""
    scores = ta.score(subject.loaded, subject.statistics, metric="fluctuation")
    parameters = ta.make_plan(scores, subject.loaded.spec, target).spec.num_parameters
    text = ta.CalibrationSet.from_sequences(list(subject.calibration.rows())[:SPLIT_SAMPLES], name="for the split")
    best, *_ = ta.search_split(subject.loaded, scores, text, parameters=parameters, allocation="global")
    yield ta.prune(subject.loaded, best.plan, compensation="least_squares", statistics=subject.statistics)


def ours(subject: Subject, target: ta.PruningTarget) -> Iterable[ta.LoadedModel]:
    plan = ta.search_plan(subject.loaded, subject.statistics, target)
    yield ta.prune(subject.loaded, plan, compensation="best", statistics=subject.statistics)


METHODS = (
    Method("random", by_metric("random", seeds=RANDOM_SEEDS), drawn=False),
    Method("magnitude", by_metric("magnitude")),
    Method("TransAct", by_metric("transact"), kind="first"),
    Method("LLM-Pruner's Taylor", by_metric("taylor")),
    Method("Wanda-sp", by_metric("wanda")),
    Method("FLAP metric", by_metric("fluctuation")),
    Method("FLAP metric + bias", by_metric("fluctuation", compensation="bias"), kind="second"),
    Method("FLAP as published (AL-AM)", by_metric("flap", allocation="flap"), drawn=False),
    Method(
        "FLAP as published (AL-AM) + bias", by_metric("flap", compensation="bias", allocation="flap"), kind="fourth"
    ),
    Method(
        "TransAct + least squares", by_metric("transact", compensation="least_squares"), is_peer=False, kind="third"
    ),
    Method("FLAP metric + least squares", by_metric("fluctuation", compensation="least_squares"), is_peer=False),
    Method(
        "FLAP metric + least squares, global",
        by_metric("fluctuation", compensation="least_squares", allocation="global"),
        is_peer=False,
        drawn=False,
    ),
    Method("the same, split searched", split_searched, is_peer=False, drawn=False),
    Method("ours: search_plan + best", ours, is_peer=False, kind="ours"),
)


def read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def subject(name: str, *, quick: bool) -> Subject:
    few = QUICK_TEXTS if quick else None
    if name == STORIES:
        loaded = ta.load(str(DATA / STORIES), dtype="float32")
        protocol = {"seq_len": 256, "min_tokens": 64}
        texts = [read(DATA / f"tinystories_{part}.jsonl")[:few] for part in ("calibration", "evaluation")]
    else:
        loaded = ta.load(BUNDLED)
        protocol = {"seq_len": 256}
        texts = [read(SAMPLES / f"{part}.jsonl")[:few] for part in ("mixed", "evaluation_mixed")]
    calibration = ta.CalibrationSet.from_texts(texts[0], loaded.tokenizer, name=name, **protocol)
    evaluation = ta.EvaluationSet.from_texts(texts[1], loaded.tokenizer, name=name, **protocol)
    layer = loaded.spec.layers[0]
    items = None if name == BUNDLED else 0
    return Subject(
        name=name,
        loaded=loaded,
        calibration=calibration,
        statistics=ta.observe(loaded, calibration, gram=True, taylor=True),
        evaluation=evaluation,
        sizes=tuple(
            (groups * layer.num_key_value_heads // GROUPS, round(channels * layer.intermediate_size / CHANNELS))
            for groups, channels in SIZES
        ),
        dense_perplexity=ta.perplexity(loaded, evaluation),
        dense_probes=probes(loaded, QUICK_TEXTS if quick and items is None else items),
        probe_items=QUICK_TEXTS if quick and items is None else items,
    )


def probes(loaded: ta.LoadedModel, items: int | None) -> dict[str, float]:
    """Accuracy of each probe on its first items; none for a model that they were not made for."""
    if items == 0:
        return {}
    return {probe.kind: ta.run_probe(loaded, probe, limit=items).accuracy for probe in ta.load_probes()}


def measured(subject: Subject, method: Method, size: tuple[int, int]) -> Result:
    started = time.perf_counter()
    models = list(method.make(subject, ta.PruningTarget(*size)))
    seconds = (time.perf_counter() - started) / len(models)
    losses = [math.log(ta.perplexity(model, subject.evaluation)) for model in models]
    found = [probes(model, subject.probe_items) for model in models]
    return Result(
        model=subject.name,
        method=method.name,
        keep_head_groups=size[0],
        keep_channels=size[1],
        perplexity=math.exp(mathematics.fmean(losses)),
        gap=mathematics.fmean(losses) - math.log(subject.dense_perplexity),
        parameters_kept=models[0].cuts[0].plan.spec.num_parameters / subject.loaded.spec.num_parameters,
        seconds=seconds,
        probes={kind: mathematics.fmean(one[kind] for one in found) for kind in found[0]},
    )


def with_ratios(row: list[Result]) -> list[Result]:
    """The row beside its best peer; refuses rows of unequal sizes."""
    kept = [result.parameters_kept for result in row]
    if max(kept) - min(kept) > TOLERANCE * min(kept):
        raise SystemExit(f"The methods keep {min(kept):.4f} to {max(kept):.4f} of the parameters; sizes must be equal.")
    peers = {method.name for method in METHODS if method.is_peer}
    best = min(result.gap for result in row if result.method in peers)
    return [Result(**{**asdict(result), "ratio": result.gap / best if best > 0 else None}) for result in row]


def summary(subject: Subject, results: list[Result]) -> str:
    """One line a method: perplexity at every size, ratios, probes, parameters and time."""
    sizes = list(dict.fromkeys((result.keep_head_groups, result.keep_channels) for result in results))
    kept = {(result.keep_head_groups, result.keep_channels): result.parameters_kept for result in results}
    header = ["method", *(f"{groups} / {channels} ({kept[groups, channels]:.3f})" for groups, channels in sizes)]
    header += ["gap: mean", "ratio: mean", "worst", *(["probes"] if subject.dense_probes else []), "seconds"]
    rows = []
    for name in dict.fromkeys(result.method for result in results):
        of_method = [result for result in results if result.method == name]
        ratios = [result.ratio for result in of_method if result.ratio is not None] or [math.nan]
        cells = [name, *(_rounded(result.perplexity, 4) for result in of_method)]
        cells.append(f"{mathematics.fmean(result.gap for result in of_method):.3f}")
        cells += [_rounded(mathematics.fmean(ratios), 3), _rounded(max(ratios), 3)]
        if subject.dense_probes:
            cells.append(f"{mathematics.fmean(mathematics.fmean(result.probes.values()) for result in of_method):.0%}")
        rows.append([*cells, f"{mathematics.fmean(result.seconds for result in of_method):.1f}"])
    dense = f"dense perplexity {subject.dense_perplexity:.3f}"
    if subject.dense_probes:
        dense += f", probes {mathematics.fmean(subject.dense_probes.values()):.0%}"
    layer = subject.loaded.spec.layers[0]
    return (
        f"**{subject.name}**: {dense}; {subject.statistics.num_tokens:,} calibration tokens. Columns: head groups of "
        f"{layer.num_key_value_heads} / channels of {layer.intermediate_size} kept in each layer (parameters kept).\n\n"
        + table(header, rows)
    )


def _rounded(value: float, digits: int) -> str:
    """To so many significant digits, all of them shown."""
    return f"{value:#.{digits}g}".removesuffix(".")


def panel(subject: Subject, results: list[Result]) -> Panel:
    lines = []
    for method in METHODS:
        points = tuple(
            (result.parameters_kept, result.perplexity / subject.dense_perplexity)
            for result in results
            if result.method == method.name
        )
        if points and method.drawn:
            lines.append(Line(method.name, method.kind, points))
    return Panel(subject.name, tuple(sorted(lines, key=lambda line: line.kind != "peer")))


def write_into_document(text: str) -> None:
    """Replace what stands between the two marks; refuses a document without them."""
    write_between(DOCUMENT, "quality", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="", help="which of the five sizes, as 0,4 (default: all)")
    parser.add_argument("--models", default=f"{STORIES},{BUNDLED}", help="which models (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="the first texts and probe items alone: to see it work")
    parser.add_argument(
        "--docs", action="store_true", help="also put the tables of a whole run into docs/benchmarks.md"
    )
    given = parser.parse_args()
    rows = [int(row) for row in given.rows.split(",")] if given.rows else list(range(len(SIZES)))
    names = given.models.split(",")
    if STORIES in names and not DATA.is_dir():
        sys.stderr.write("stories260K is left out: the development data (../shared/data) is not here.\n")
        names.remove(STORIES)
    texts, panels, figures = [], [], []
    for name in names:
        under_test = subject(name, quick=given.quick)
        results = []
        for row in rows:
            made = [measured(under_test, method, under_test.sizes[row]) for method in METHODS]
            results += with_ratios(made)
            sys.stderr.write(f"{name} {under_test.sizes[row]}\n")
        texts.append(summary(under_test, results))
        panels.append(panel(under_test, results))
        figures += [asdict(result) for result in results]
    text = "\n\n".join((*texts, NOTE))
    if given.quick or given.rows or given.models != parser.get_default("models"):
        sys.stdout.write(text + "\n")
        return
    publish("quality", "Quality without training", text, {"results": figures, "note": NOTE})
    PICTURE.write_text(picture(panels), encoding="utf-8")
    if given.docs:
        write_into_document(text)


if __name__ == "__main__":
    main()
