"""Make a file of the gallery: scores and a sweep of a model, without its weights (docs/gallery.md).

    python -m benchmarks.gallery --model FOLDER --text FILE --measure FILE --out NAME.safetensors

- Scores: by every metric, on `--samples` texts of `--text`, each cut at `--seq-len` tokens; shorter texts are left out.
- Sweep: at each of `--sizes`, per cent of the *prunable* parameters (those of attention's and MLP's projections), the
  metric's channels and head groups are cut, as many in every layer, channels first, and the rest is refitted by least
  squares; perplexity on the first `--windows` contiguous windows of `--window` tokens of `--measure`. Sizes between are
  predicted, the logarithm of the perplexity being linear between measured ones.
- `--weights` and `--licence` say which weights were scored, `--source` under which hub id weights of these shapes are
  found. Without `--measure` the text of `--text` measures too, which flatters.
"""

import argparse
import math
import platform
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import transformers

import transact as ta
from transact.analysis.gallery_model import GalleryModel, Origin, SizePoint, SizeSweep
from transact.cli.files import read_text
from transact.compression.recipe import target_of_size

METRIC, REPAIR = "transact", "least_squares"
SPLIT = "as many channels in every layer, and head groups only where few channels would be left"


def main() -> None:
    given = options().parse_args()
    loaded = ta.load(given.model, dtype=given.dtype)
    calibration = ta.CalibrationSet.from_texts(
        read_text(given.text).texts, loaded.tokenizer, num_samples=given.samples, seq_len=given.seq_len,
        min_tokens=given.seq_len, name=given.text_name or given.text.stem,
    )  # fmt: skip
    evaluation = measured_text(given, loaded)
    started = time.perf_counter()
    say(f"reading {calibration.num_tokens:,} tokens")
    statistics = ta.observe(
        loaded,
        calibration,
        gram=ta.grams_for_repair(loaded.spec),
        taylor=given.taylor,
        queries=loaded.layout.no_head_dim_pruning_reason is None,
    )
    say(f"read in {time.perf_counter() - started:.0f} s")
    scores = {metric: ta.score(loaded, statistics, metric=metric) for metric in ta.available_metrics(statistics)}
    sizes = [float(size) for size in given.sizes.split(",")]
    model = GalleryModel(
        name=given.name or Path(given.model).name,
        spec=loaded.spec,
        fingerprint=loaded.fingerprint,
        origin=Origin(given.weights, given.licence, given.source),
        calibration=statistics.calibration,
        dtype=statistics.dtype,
        scores=scores,
        sweep=swept(loaded, scores[METRIC], statistics, evaluation, sizes),
        versions={
            "transact": ta.__version__, "torch": torch.__version__, "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    )  # fmt: skip
    model.save(given.out)
    agree = same_units(model, GalleryModel.load(given.out))
    say(f"{given.out}: {given.out.stat().st_size:,} bytes; its plans keep {agree:.3%} of the units of the exact ones")


def measured_text(given: argparse.Namespace, loaded: ta.LoadedModel) -> ta.EvaluationSet:
    file = given.measure or given.text
    name = given.measure_name or file.stem
    whole = "\n\n".join(read_text(file).texts) if file.suffix == ".jsonl" else file.read_text(encoding="utf-8")
    document = ta.EvaluationSet.from_document(whole, loaded.tokenizer, seq_len=given.window, name=name)
    return document.first(given.windows)


def swept(
    loaded: ta.LoadedModel, scores: ta.ImportanceScores, statistics: ta.ActivationStatistics,
    evaluation: ta.EvaluationSet, sizes: list[float],
) -> SizeSweep:  # fmt: skip
    """The dense model, every size measured, and sizes between predicted."""
    spec = loaded.spec
    prunable = spec.num_parameters - spec.fixed_parameters

    def point(parameters: int, perplexity: float, measured: bool) -> SizePoint:
        say(f"{parameters:,} parameters: perplexity {perplexity:.3f}{'' if measured else ', predicted'}")
        return SizePoint((spec.num_parameters - parameters) / prunable, parameters, perplexity, measured)

    points = [point(spec.num_parameters, ta.perplexity(loaded, evaluation), True)]
    targets = [target_of_size(spec, 1 - prunable * size / 100 / spec.num_parameters) for size in sizes if size]
    for each in ta.sweep(loaded, scores, targets, evaluation, compensation=REPAIR, statistics=statistics):
        points.append(point(each.parameters, each.perplexity, True))
    sweep = SizeSweep(
        evaluation.name, evaluation.num_tokens, max(evaluation.lengths), evaluation.protocol, METRIC, REPAIR, SPLIT,
        tuple(points),
    )  # fmt: skip
    middles = [(low.parameters + high.parameters) // 2 for low, high in pairwise(points)]
    expected = [point(middle, sweep.perplexity_at(middle) or math.nan, False) for middle in middles]
    return replace(sweep, points=(*points, *expected))


def same_units(exact: GalleryModel, read: GalleryModel) -> float:
    """Share of the channels that plans of half the channels keep from the exact scores, and from those of the file."""
    kept = same = 0
    target = ta.PruningTarget.from_sparsity(exact.spec, attention=0.0, mlp=0.5)
    for metric in exact.scores:
        plans = [ta.make_plan(model.scores[metric], exact.spec, target) for model in (exact, read)]
        for one, other in zip(*(plan.layers for plan in plans), strict=True):
            kept += len(one.kept_channels)
            same += len(set(one.kept_channels) & set(other.kept_channels))
    return same / kept


def say(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder, a hub id, or bundled")
    parser.add_argument("--text", type=Path, required=True, help="the texts that score, as for the command line")
    parser.add_argument("--out", type=Path, required=True, help="the file; the gallery calls the model by its name")
    parser.add_argument("--measure", type=Path, help="the text that measures, read as one document")
    parser.add_argument("--name", help="of the model (default: that of its folder)")
    parser.add_argument("--text-name", help="of the text that scores (default: that of its file)")
    parser.add_argument("--measure-name", help="of the text that measures (default: that of its file)")
    parser.add_argument("--weights", default="as published", help="which weights these are (default: %(default)s)")
    parser.add_argument("--licence", default="unknown", help="of the model (default: %(default)s)")
    parser.add_argument("--source", help="hub id of weights of these shapes")
    parser.add_argument("--dtype", default="float32", help="to compute in (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=128, help="texts that score (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=512, help="tokens of each (default: %(default)s)")
    parser.add_argument("--sizes", default="15,25,37.5,50", help="per cent of the prunable parameters removed")
    parser.add_argument("--windows", type=int, default=32, help="windows that measure (default: %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens of each (default: %(default)s)")
    parser.add_argument("--taylor", action="store_true", help="also gradients, for the metric of that name")
    return parser


if __name__ == "__main__":
    main()
