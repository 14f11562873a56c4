"""Results as tables and sentences for a terminal; full precision is in the JSON."""

from collections.abc import Iterable, Sequence

from transact.evaluation.evaluate import EvalReport
from transact.evaluation.lm_eval_tasks import TaskResults
from transact.export.gguf.writer import GgufReport
from transact.export.report import SaveReport
from transact.recovery.savepoints import RecoveryPoint
from transact.scoring.scores import ImportanceScores
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import PruningPlan
from transact.text.tokens import EvaluationSet, TokenSet
from transact.wording import measured as measured_number

_COSTS = (
    ("parameters", "parameters"),
    ("FLOPs per token", "flops_per_token"),
    ("KV-cache bytes per token (16-bit)", "kv_bytes_per_token"),
    ("checkpoint bytes", "checkpoint_bytes"),
)
_SPEEDS = ("prefill", "decode")
_NOISE = "none within the noise"


def score_table(scores: ImportanceScores) -> str:
    """Per layer: its own score, its weakest head group, and how its group and channel scores spread."""
    rows = [
        [
            *("layer", "its score", "head groups: lowest", "(which)", "median", "highest"),
            *("channels: lowest", "median", "highest"),
        ]
    ]
    for index, (groups, channels) in enumerate(zip(scores.head_groups, scores.mlp_channels, strict=True)):
        own = "" if scores.layers is None else measured_number(float(scores.layers[index]))
        low, *rest = _spread(groups)
        rows.append([str(index), own, low, str(int(groups.argmin())), *rest, *_spread(channels)])
    return _table(rows)


def plan(source: str, made: PruningPlan, compensation: str = "none") -> tuple[str, str]:
    """How a plan was made, then what it keeps and what that saves; bytes are for 16-bit elements."""
    repaired = "" if compensation == "none" else f", repaired by {compensation}"
    heading = f"{source}, {made.metric} on {made.calibration}, allocation {made.allocation}{repaired}"
    summary = made.summary()
    before, after = summary["before"], summary["after"]
    rows = [["", "before", "after", "change"]]
    costs = (*_COSTS, (f"KV-cache bytes of {made.spec.max_position_embeddings:,} tokens", "kv_bytes_full_context"))
    rows += [
        _cost(f"{label}{' (16-bit)' * ('bytes' in name and '16-bit' not in label)}", before[name], after[name])
        for label, name in costs
    ]
    if made.removed_layers:
        layers = [f"{spec.num_hidden_layers:,}" for spec in (made.dense_spec, made.spec)]
        rows.append(["layers", *layers, f"without {', '.join(map(str, made.removed_layers))}"])
    for label, name in (("head groups per layer", "num_key_value_heads"), ("channels per layer", "intermediate_size")):
        rows.append([label, _counts(made.dense_spec, name), _counts(made.spec, name), ""])
    if made.spec.has_narrow_heads:
        for label, name in (("dimensions of queries and keys", "query_key_dim"), ("of values", "value_dim")):
            rows.append([label, *(str(getattr(spec, name)) for spec in (made.dense_spec, made.spec)), ""])
    return heading, _table(rows)


def recovery(points: Sequence[RecoveryPoint]) -> str:
    """The last figures of every phase."""
    rows = [["phase", "parameters", "steps", "tokens", "loss", "perplexity"]]
    for phase in dict.fromkeys(point.phase for point in points):
        own = [point for point in points if point.phase == phase]
        loss, perplexity = (
            next((getattr(point, name) for point in reversed(own) if getattr(point, name) is not None), None)
            for name in ("loss", "perplexity")
        )
        last = own[-1]
        figures = ["" if value is None else f"{value:.4f}" for value in (loss, perplexity)]
        rows.append([phase, f"{last.parameters:,}", f"{last.step:,}", f"{last.tokens:,}", *figures])
    return _table(rows)


def saved(report: SaveReport) -> str:
    proved = () if report.proof is None else (report.proof.outcome,)
    return " ".join((f"The checkpoint is in {report.directory} ({report.model_class}).", *report.notes, *proved))


def saved_gguf(report: GgufReport) -> str:
    return " ".join(
        (
            f"The GGUF file is {report.path} (llama.cpp's {report.architecture}, {report.file_type}, "
            f"{report.bytes:,} bytes).",
            *report.notes,
        )
    )


def measured(report: EvalReport, evaluation: EvaluationSet) -> tuple[str, ...]:
    """The text and protocol, the numbers, and the continuations of the prompt, if any."""
    pairs = (("The reference continues", report.reference_generation), ("The model continues", report.generation))
    generations = (f"{label}:\n{text}" for label, text in pairs if text is not None)
    heading = f"Measured on {tokens(evaluation)}, {report.num_predictions:,} predictions; {evaluation.protocol}"
    return (heading, _report_table(report), f"{report.protocol['costs']}.", *generations)


def tasks(results: TaskResults) -> tuple[str, str]:
    """The harness, and the table: a row for each metric, the models side by side, and the difference of two."""
    first = "" if results.limit is None else f", the first {results.limit:,} documents of each task"
    rows = [["", "shots", *results.models, *(["change"] if len(results.models) == 2 else [])]]
    for (task, metric, filter_name), scores in results.rows().items():
        one = next(iter(scores.values()))
        better = {True: " (higher is better)", False: " (lower is better)", None: ""}[one.higher_is_better]
        read = "" if filter_name == "none" else f", {filter_name}"
        row = [f"{task}: {metric}{read}{better}", "" if one.num_fewshot is None else str(one.num_fewshot)]
        values = [scores[name].value for name in results.models]
        row += [
            "n/a" if value is None else _with_error(value, scores[name].standard_error)
            for name, value in zip(results.models, values, strict=True)
        ]
        if len(values) == 2:
            before, after = values
            row.append("" if before is None or after is None else f"{after - before:+.4f}")
        rows.append(row)
    return f"{results.harness}{first}", _table(rows)


def overlap(share: float) -> str:
    return (
        f"{share:.0%} of the measured sequences also stand in the calibration text, so the loss looks smaller than on "
        "new text."
    )


def tokens(read: TokenSet) -> str:
    """How much was read, and of how much."""
    return f"{read.name}: {read.amount}"


def _report_table(report: EvalReport) -> str:
    """What was measured, beside the reference where there is one."""
    error, change = report.perplexity_standard_error, report.perplexity_difference
    perplexity = ["perplexity", _with_error(report.perplexity, error)]
    if change is None or report.reference_perplexity is None:
        rows = [["", "model"], perplexity]
        rows += [[f"{kind}, tokens per second", _speed(report, kind)] for kind in _timed(report)]
        rows += [[label, f"{getattr(report, name):,.0f}"] for label, name in _COSTS]
        return _table(rows)
    reference = _with_error(report.reference_perplexity, report.reference_perplexity_standard_error)
    difference = _with_error(change, report.perplexity_difference_standard_error, sign="+")
    rows = [["", "reference", "model", "change"], [perplexity[0], reference, perplexity[1], difference]]
    rows.append(["same token rated highest", "", f"{report.top1_agreement:.2%}", ""])
    rows.append(["KL divergence, nats", "", f"{report.kl_divergence:.4f}", ""])
    for kind in _timed(report):
        before, after = (getattr(report, f"{of}{kind}_tokens_per_second") for of in ("reference_", ""))
        faster = f"{after / before - 1:+.1%}" if getattr(report, f"{kind}_differs") else _NOISE
        rows.append([f"{kind}, tokens per second", *(_speed(report, kind, of) for of in ("reference_", "")), faster])
    rows += [_cost(label, getattr(report, f"reference_{name}"), getattr(report, name)) for label, name in _COSTS]
    return _table(rows)


def _timed(report: EvalReport) -> tuple[str, ...]:
    return () if report.prefill_tokens_per_second is None else _SPEEDS


def _speed(report: EvalReport, kind: str, of: str = "") -> str:
    """The median of the rounds, the lowest and the highest."""
    lowest, highest = getattr(report, f"{of}{kind}_spread")
    return f"{getattr(report, f'{of}{kind}_tokens_per_second'):,.0f} ({lowest:,.0f} to {highest:,.0f})"


def _cost(label: str, before: float, after: float) -> list[str]:
    return [label, f"{before:,.0f}", f"{after:,.0f}", f"{after / before - 1:+.1%}"]


def _with_error(value: float, error: float | None, *, sign: str = "") -> str:
    return f"{value:{sign}.4f}" + ("" if error is None else f" ± {error:.4f}")


def _counts(spec: ModelSpec, name: str) -> str:
    counts = [getattr(layer, name) for layer in spec.layers]
    return str(counts[0]) if len(set(counts)) == 1 else ",".join(map(str, counts))


def _spread(scores) -> list[str]:
    """Lowest, median and highest of the scores [unit]."""
    return [measured_number(float(value)) for value in (scores.min(), scores.median(), scores.max())]


def _table(rows: Iterable[Sequence[str]]) -> str:
    """Columns side by side, the first to the left, numbers to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
