"""What a plan costs, as far as it is known: behind masks before the cut, measured after it; in plain words first."""

from html import escape

import transact as ta
from transact.analysis.gallery_model import SizeSweep
from ui.format import numbers
from ui.state.session import Result, Session, Tried
from ui.views.progress_line import Mood

FAIR, RUINED = 1.25, 2.0
"""Times the dense model's perplexity from which a loss is no longer small, and from which the model is ruined."""
_MOST_FORGOTTEN = 0.1
"""A task that loses less of its share right is not named."""


def mood_of(dense: float, pruned: float) -> Mood:
    """How bad a perplexity is beside the dense model's; one that is not a number is the worst."""
    times = pruned / dense
    return "good" if times < FAIR else "fair" if times < RUINED else "ruined"


def verdict(session: Session) -> str:
    """One line on the plan in view, as HTML."""
    if session.plan is None:
        return _line("plain", "Nothing is chosen yet.")
    if session.plan.spec == session.plan.dense_spec:
        return _line("plain", "Nothing would be removed: move a slider.")
    latest, tried = session.latest, session.tried
    if latest is not None and latest.plan == session.plan:
        return _of_result(latest)
    if tried is not None and tried.plan == session.plan:
        return _of_masks(tried)
    if session.scored is not None and session.scored.gallery is not None:
        return _of_sweep(session.scored.gallery.sweep, session.plan)
    last = "" if latest is None or latest.report is None else f" The last result: {_loss(latest.report)}."
    return _line("plain", f"What this costs is not known yet: try it behind masks, or cut and measure.{last}")


def _of_result(result: Result) -> str:
    report = result.report
    if report is None:
        return _line("plain", f"Result {result.number} was cut and is kept; it has not been measured.")
    name = "" if result.text is None else f" on {measured_on(result.text.name, result.protocol)}"
    parts = [f"<b>Measured: {_loss(report)}</b>{name}", *_forgotten(result), _speed(report)]
    return _line(mood_of(report.reference_perplexity, report.perplexity), ", ".join(part for part in parts if part))


def _of_sweep(sweep: SizeSweep, plan: ta.PruningPlan) -> str:
    """What the gallery's sweep says of other plans of that size."""
    cut = "Load the weights to cut and measure this choice."
    expected = sweep.perplexity_at(plan.spec.num_parameters)
    if expected is None:
        return _line("plain", f"No model of this was measured as small as that. {cut}")
    times = numbers.factor(sweep.dense.perplexity, expected)
    words = f"<b>At this size to be expected: perplexity {times}</b> on {escape(sweep.text)}, cut as the sweep was"
    return _line(mood_of(sweep.dense.perplexity, expected), f"{words}. {cut}")


def _of_masks(tried: Tried) -> str:
    times = numbers.factor(tried.dense, tried.masked)
    on = measured_on(tried.text, tried.protocol)
    words = f"<b>Behind masks: perplexity {times}</b> on {on}, before any repair"
    return _line(mood_of(tried.dense, tried.masked), words)


def measured_on(name: str, protocol: str) -> str:
    """The text with how much of it was measured, as HTML; windows and how each begins are shown to who points at it."""
    amount = protocol.removeprefix(name).partition(";")[0]
    return f'<span title="{escape(protocol)}">{escape(name + amount)}</span>' if amount else escape(name)


def _loss(report: ta.EvalReport) -> str:
    return f"perplexity {numbers.factor(report.reference_perplexity, report.perplexity)}"


def _forgotten(result: Result) -> list[str]:
    """The task that suffers most."""
    lost, kind, before, after = max(
        ((before - after, kind, before, after) for kind, before, after in result.probes), default=(0.0, "", 0.0, 0.0)
    )
    if lost < _MOST_FORGOTTEN:
        return []
    return [f"{escape(kind)} {numbers.percent(before)} → {numbers.percent(after)}"]


def _speed(report: ta.EvalReport) -> str:
    """How fast it reads; the spread is that of the rounds of both models."""
    before, after = report.reference_prefill_tokens_per_second, report.prefill_tokens_per_second
    if not before or not after:
        return ""
    if not report.prefill_differs:
        return "reads as fast as before, within the noise"
    spreads = (report.reference_prefill_spread, before), (report.prefill_spread, after)
    relative = sum((spread[1] - spread[0]) / 2 / median for spread, median in spreads if spread is not None)
    ratio = after / before
    return f"reads {ratio:.2f} × as fast ± {relative * ratio:.2f}"


def _line(mood: Mood, words: str) -> str:
    return f'<p class="verdict {mood}">{words}</p>'
