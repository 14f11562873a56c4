"""One result as a table: dense, pruned and difference, and what each layer keeps."""

from collections.abc import Iterable
from html import escape

import transact as ta
from ui.format import labels, numbers
from ui.state.session import Result
from ui.views.savings import savings

NOISE = "no different within the noise"
LAYER_HEADERS = ("Layer", "Head groups kept", "of", "Channels kept", "of")


def result_table(result: Result) -> str:
    """What was lost and what was gained, with the protocol of every number, as HTML."""
    report = result.report
    return (
        f"{_headline(result)}"
        f"{scrolled_table('Result', ('What', 'Dense', 'Pruned', 'Difference'), _rows(result))}"
        f'<p class="honest">{escape(speed_sentence(report))}{escape(_overlap_sentence(result))}</p>'
        f"{_protocol(report)}"
    )


def speed_sentence(report: ta.EvalReport) -> str:
    """One sentence on whether the pruned model is faster on this machine, and why not where it is not."""
    if not report.decode_tokens_per_second or not report.reference_decode_tokens_per_second:
        return "Speed was not measured."
    kinds = (("prefill", "reads"), ("decode", "writes"))
    ideals, verbs, behind = [], [], False
    for kind, verb in kinds:
        of = (f"{kind}_tokens_per_second", f"reference_{kind}_tokens_per_second")
        work = (f"reference_{kind}_flops_per_token", f"{kind}_flops_per_token")
        ratio, ideal = (getattr(report, first) / getattr(report, second) for first, second in (of, work))
        ideals.append(ideal)
        is_other = getattr(report, f"{kind}_differs")
        behind = behind or not is_other or ratio < 1
        verbs.append(
            f"{verb} {numbers.figure(ratio)} × as fast" if is_other else f"{verb} as fast as before within the noise"
        )
    measured = f"On this machine it {' and '.join(verbs)}"
    if ideals == [1, 1]:
        return f"{measured}: nothing that counts here was removed."
    allowed = f"{measured}; the saved operations alone would allow {ideals[0]:.2f} × and {ideals[1]:.2f} ×."
    if not behind:
        return allowed
    return (
        f"{allowed} At {numbers.count(report.reference_parameters)} parameters much of the time goes into fixed costs "
        "of every layer, which pruning leaves as they are."
    )


def _overlap_sentence(result: Result) -> str:
    """A warning where the measured text also chose what to keep."""
    if not result.overlap:
        return ""
    return (
        f" {numbers.percent(result.overlap)} of the measured sequences also stand in the calibration text, so the "
        "loss looks smaller than on new text."
    )


def layer_rows(plan: ta.PruningPlan) -> list[list[int]]:
    """What each layer keeps, for the table that can be edited."""
    return [
        [
            index,
            after.num_key_value_heads,
            before.num_key_value_heads,
            after.intermediate_size,
            before.intermediate_size,
        ]
        for index, (before, after) in enumerate(zip(plan.dense_spec.layers, plan.spec.layers, strict=True))
    ]


def _headline(result: Result) -> str:
    achieved = result.plan.summary()["achieved"]
    return (
        f'<p class="headline">Result {result.number}: {numbers.percent(achieved["parameter_sparsity"], 1)} of the '
        f"parameters removed ({numbers.percent(achieved['attention_sparsity'])} of attention, "
        f"{numbers.percent(achieved['mlp_sparsity'])} of MLP channels, chosen by "
        f"{escape(labels.metric(result.metric))}).</p>"
    )


def _rows(result: Result):
    report = result.report
    yield row(
        "Surprise at the text", f"perplexity on {result.text.name}, lower is better",
        _with_error(report.reference_perplexity, report.reference_perplexity_standard_error),
        _with_error(report.perplexity, report.perplexity_standard_error),
        f"{numbers.factor(report.reference_perplexity, report.perplexity)} <small>"
        f"({_with_error(report.perplexity_difference, report.perplexity_difference_standard_error, signed=True)})"
        "</small>",
    )  # fmt: skip
    yield row("Same next token", "top-1 agreement", "", numbers.percent(report.top1_agreement, 1), "")
    yield row("Change of the predictions", "mean KL divergence, nats", "", numbers.figure(report.kl_divergence), "")
    for kind, before, after in result.probes:
        yield row(
            f"Task: {kind}", "probe, share right", numbers.percent(before), numbers.percent(after),
            numbers.points(after - before),
        )  # fmt: skip
    yield from _speed_rows(report)
    for saving in savings(result.plan):
        yield row(saving.label, saving.protocol, saving.before, saving.after, numbers.change(1, 1 - saving.removed))


def _speed_rows(report: ta.EvalReport):
    for label, kind in (("Reading speed", "prefill"), ("Writing speed", "decode")):
        before, after = (getattr(report, f"{of}{kind}_tokens_per_second") for of in ("reference_", ""))
        if before and after:
            shown = [speed(report, kind, of) for of in ("reference_", "")]
            difference = numbers.change(before, after) if getattr(report, f"{kind}_differs") else NOISE
            yield row(label, f"{kind}, tokens per second", *shown, difference)


def speed(report: ta.EvalReport, kind: str, of: str = "") -> str:
    """The median of the rounds, with the lowest and the highest where they are known."""
    shown = numbers.count(getattr(report, f"{of}{kind}_tokens_per_second"))
    spread = getattr(report, f"{of}{kind}_spread")
    return shown if spread is None else f"{shown} <small>{' – '.join(map(numbers.count, spread))}</small>"


def scrolled_table(label: str, heads: Iterable[str], rows: Iterable[str]) -> str:
    """Rows as `row` makes them; where they are wider than the page, the table scrolls, by keyboard too."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}"><table class="results">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(label: str, term: str, dense: str, pruned: str, difference: str) -> str:
    """One quantity, in plain words and in the field's term."""
    return (
        f'<tr><th scope="row">{escape(label)} <small>{escape(term)}</small></th>'
        f"<td>{dense}</td><td>{pruned}</td><td>{difference}</td></tr>"
    )


def _with_error(value: float | None, error: float | None, *, signed: bool = False) -> str:
    shown = numbers.signed(value) if signed else numbers.figure(value)
    return shown if error is None else f"{shown} <small>± {numbers.figure(error)}</small>"


def _protocol(report: ta.EvalReport) -> str:
    items = "".join(
        f"<dt>{escape(str(name).replace('_', ' '))}</dt><dd>{escape(str(words))}</dd>"
        for name, words in report.protocol.items()
    )
    return f"<details><summary>How each number was measured</summary><dl>{items}</dl></details>"
