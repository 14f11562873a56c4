"""All results so far: a row each, the same as CSV, and any two of them side by side."""

import csv
import io
from html import escape

import transact as ta
from ui.format import labels, numbers
from ui.state.session import Result
from ui.views.result_table import NOISE, row, scrolled_table, speed

HISTORY_HEADERS = (
    "#", "Parameters", "Perplexity", "dense", "random", "Same token", "Heads cut", "MLP cut", "Metric", "Repair",
    "Scored on", "Measured on", "Model",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What makes a spreadsheet take a cell for a formula, in the wide forms of East Asian keyboards too."""
_COMPARED = (
    ("Perplexity", "lower is better", "perplexity", numbers.figure, numbers.factor),
    ("Same next token", "top-1 agreement", "top1_agreement", lambda value: numbers.percent(value, 1),
     lambda before, after: numbers.points(after - before)),
    ("Change of the predictions", "KL divergence, nats", "kl_divergence", numbers.figure, numbers.factor),
    ("Weights", "parameters", "parameters", numbers.count, numbers.change),
    ("Work per token", "FLOPs at a context of 512", "flops_per_token", numbers.count, numbers.change),
    ("Memory per token", "KV cache", "kv_bytes_per_token", numbers.size, numbers.change),
)  # fmt: skip
"""Label, term, field of the report, how a value is written, and how a difference is."""
_SPEEDS = (("Reading speed", "prefill"), ("Writing speed", "decode"))


def side_by_side(first: Result | None, second: Result | None) -> str:
    """Two results: their settings, their numbers, and how much of what they keep is the same."""
    if first is None or second is None:
        return '<div class="empty">Two results are needed: prune, change something, and prune again.</div>'
    rows = [
        row("Chosen by", "metric", *(escape(labels.metric(one.metric)) for one in (first, second)), ""),
        row("Scored on", "calibration text", escape(first.scored.text.name), escape(second.scored.text.name), ""),
        row("Repair", "compensation", *(escape(labels.repair(one.repaired)) for one in (first, second)), ""),
        row("Measured on", "evaluation text", escape(first.text.name), escape(second.text.name), ""),
    ]
    rows += [_kept_row(first, second, *part) for part in _kept_parts(first, second)]
    for label, term, field, show, differ in _COMPARED:
        values = [getattr(result.report, field) for result in (first, second)]
        if None not in values:
            rows.append(row(label, term, *map(show, values), differ(*values) if values[0] else ""))
    rows += _speed_rows(first, second)
    after = {kind: share for kind, _, share in second.probes}
    for kind, _, share in first.probes:
        if kind in after:
            rows.append(
                row(f"Task: {kind}", "probe, share right", numbers.percent(share), numbers.percent(after[kind]),
                    numbers.points(after[kind] - share))
            )  # fmt: skip
    heads = ("What", *(f"Result {result.number}" for result in (first, second)), "Second against first")
    return scrolled_table("Two results side by side", heads, rows)


def _speed_rows(first: Result, second: Result):
    """Equal shapes, and speeds whose rounds overlap, are not called different."""
    same = first.plan.spec == second.plan.spec
    for label, kind in _SPEEDS:
        values = [getattr(result.report, f"{kind}_tokens_per_second") for result in (first, second)]
        spreads = [getattr(result.report, f"{kind}_spread") for result in (first, second)]
        if None not in values:
            noise = same or (None not in spreads and not ta.speeds_differ(*spreads))
            shown = [speed(result.report, kind) for result in (first, second)]
            yield row(label, f"{kind}, tokens per second", *shown, NOISE if noise else numbers.change(*values))


def _kept_parts(first: Result, second: Result):
    if first.plan.dense_spec != second.plan.dense_spec:
        return
    yield "Head groups kept", lambda layer: layer.kept_head_groups
    if first.plan.cuts_inside_groups or second.plan.cuts_inside_groups:
        yield "Query heads kept", lambda layer: layer.kept_heads
    yield "Channels kept", lambda layer: layer.kept_channels


def _kept_row(first: Result, second: Result, label: str, units) -> str:
    kept = [
        {(index, unit) for index, layer in result.plan.kept_layer_plans.items() for unit in units(layer)}
        for result in (first, second)
    ]
    common = len(kept[0] & kept[1]) / min(map(len, kept))
    return row(label, "all layers", *(f"{len(units):,}" for units in kept), f"{numbers.percent(common)} in common")


def history_rows(results: tuple[Result, ...]) -> list[list[str]]:
    """One row a result, newest first, as they stand in the page."""
    return [[str(cell) for cell in _history_row(result)] for result in reversed(results)]


def history_csv(results: tuple[Result, ...]) -> str:
    """The history with full precision, oldest first."""
    kinds = list(dict.fromkeys(kind for result in results for kind, _, _ in result.probes))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(
        ("number", "model", "calibration", "metric", "repair", "attention_sparsity", "mlp_sparsity", "parameters",
         "perplexity", "perplexity_standard_error", "reference_perplexity", "random_perplexity", "top1_agreement",
         "kl_divergence", "evaluation", *(f"probe_{kind}" for kind in kinds))
    )  # fmt: skip
    for result in results:
        if result.report is None:
            continue
        achieved, report = result.plan.summary()["achieved"], result.report
        probes = {kind: after for kind, _, after in result.probes}
        writer.writerow(
            (result.number, _cell(result.scored.key.source), _cell(result.scored.text.name), result.metric,
             result.repaired,
             achieved["attention_sparsity"], achieved["mlp_sparsity"], report.parameters, report.perplexity,
             report.perplexity_standard_error, report.reference_perplexity, result.floor, report.top1_agreement,
             report.kl_divergence, _cell(result.text.name), *(probes.get(kind, "") for kind in kinds))
        )  # fmt: skip
    return buffer.getvalue()


def _cell(name: str) -> str:
    """A name that somebody else chose, as a spreadsheet shows it and does not compute it."""
    return f"'{name}" if name.startswith(_FORMULA) else name


def _history_row(result: Result) -> tuple:
    achieved = result.plan.summary()["achieved"]
    return (
        result.number,
        numbers.count(result.plan.spec.num_parameters),
        *_measured(result),
        numbers.percent(achieved["attention_sparsity"]),
        numbers.percent(achieved["mlp_sparsity"]),
        labels.metric(result.metric),
        labels.repair(result.repaired),
        result.scored.text.name,
        "" if result.text is None else result.text.name,
        result.scored.key.source,
    )


def _measured(result: Result) -> tuple[str, ...]:
    """The cells of what was measured."""
    report = result.report
    if report is None:
        return "not measured", "", "", ""
    error = report.perplexity_standard_error
    return (
        numbers.figure(report.perplexity) + ("" if error is None else f" ± {numbers.figure(error)}"),
        numbers.figure(report.reference_perplexity),
        numbers.figure(result.floor),
        numbers.percent(report.top1_agreement, 1),
    )
