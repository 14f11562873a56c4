"""Two results side by side: their settings, their numbers, what both keep, and what both write."""

from html import escape

import transact as ta
from ui.format import labels, numbers
from ui.state.session import Result
from ui.views.changed_words import changed
from ui.views.result_table import NOISE, row, scrolled_table, speed
from ui.views.savings import savings

_COMPARED = (
    ("Perplexity", "lower is better", "perplexity", numbers.figure, numbers.factor),
    ("Same next token", "top-1 agreement", "top1_agreement", lambda value: numbers.percent(value, 1),
     lambda before, after: numbers.points(after - before)),
    ("Change of the predictions", "KL divergence, nats", "kl_divergence", numbers.figure, numbers.factor),
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
            comparable = values[0] and (field != "perplexity" or first.text == second.text)
            rows.append(row(label, term, *map(show, values), differ(*values) if comparable else ""))
    rows += _speed_rows(first, second)
    for one, other in zip(savings(first.plan), savings(second.plan), strict=False):
        if one.protocol == other.protocol:
            change = numbers.change(1 - one.removed, 1 - other.removed) if _same_model(first, second) else ""
            rows.append(row(one.label, one.protocol, one.after, other.after, change))
    after = {kind: share for kind, _, share in second.probes}
    for kind, _, share in first.probes:
        if kind in after:
            rows.append(
                row(f"Task: {kind}", "probe, share right", numbers.percent(share), numbers.percent(after[kind]),
                    numbers.points(after[kind] - share))
            )  # fmt: skip
    heads = ("What", *(f"Result {result.number}" for result in (first, second)), "Second against first")
    return scrolled_table("Two results side by side", heads, rows)


def two_texts(prompt: str, first: tuple[int, str], second: tuple[int, str]) -> str:
    """What two results, each by its number, write after one prompt; words that only the second has are marked."""
    panes = ((first, escape(first[1])), (second, changed(first[1], second[1])))
    same = " They write the same." if first[1] == second[1] else " Marked: words in which the second differs."
    return (
        '<div class="pair">'
        + "".join(
            f'<section class="said"><h3>Result {number}</h3><p><span>{escape(prompt)}</span>{words}</p></section>'
            for (number, _), words in panes
        )
        + f'</div><p class="note-line">Both choose the likeliest token each time.{same}</p>'
    )


def _same_model(first: Result, second: Result) -> bool:
    return first.plan.dense_spec == second.plan.dense_spec


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
    if not _same_model(first, second):
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
