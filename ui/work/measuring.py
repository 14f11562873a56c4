"""Measure a plan behind masks, a result, the redundancy map and the choice's stability; write text."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import transact as ta
from transact.models.tasks_by_placement import WRITING
from ui.server import limits, zerogpu
from ui.state import plan_of_choice
from ui.state.measuring_size import ALL, Size
from ui.state.session import Answers, ModelKey, Redundancy, Result, Session, Steadiness
from ui.text_sources import text_source
from ui.text_sources.text_source import EVALUATION_TOKENS, TextSource
from ui.work import streamed
from ui.work.pruning import pruned_model
from ui.work.registry import Registry
from ui.work.step_costs import PROBE_TOKENS, SPEED_STEPS, WRITTEN_TOKENS
from ui.work.watch import Watch

PROBE_ITEMS = 60
"""Items per probe; enough for steps of under 2 %, few enough for seconds."""
MAP_SEQUENCES, MAP_WHOLE_TEXT = 40, 20_000_000
"""Sequences that each point of the redundancy map is measured on; a model of up to so many parameters reads the whole
text at every point, so that a point says what trying it says."""
MAP_MLP_SPARSITIES = tuple(step / 10 for step in range(10))


@dataclass(frozen=True)
class WhatIf:
    """The model as it stands and with the plan's units masked, on the same text, prompt and probes."""

    dense: float
    masked: float
    num_tokens: int
    text: str
    dense_writes: str | None = None
    masked_writes: str | None = None
    answers: Answers = ()
    protocol: str = ""

    @property
    def probes(self) -> tuple[tuple[str, float, float], ...]:
        return _shares(self.answers)


def evaluation_set(
    text: TextSource, loaded: ta.LoadedModel, *, num_samples: int | None = None, size: Size = ALL
) -> ta.EvaluationSet:
    """The text in sequences as they are measured everywhere here; a few of them where the model is streamed."""
    seq_len = min(EVALUATION_TOKENS, loaded.context_length)
    tokens = text_source.evaluation_set(text, loaded, seq_len=seq_len, num_samples=num_samples)
    if loaded.is_streamed:
        return tokens.first(streamed.SEQUENCES)
    if size.tokens is not None:
        return tokens.up_to(size.tokens)
    limits.measured(tokens.num_tokens)
    return tokens


def protocol(evaluation: ta.EvaluationSet) -> str:
    """What a perplexity belongs to: text, tokens, windows, and how each begins."""
    return f"{evaluation.name}: {evaluation.amount}; {evaluation.protocol}"


def what_if(
    registry: Registry, session: Session, text: TextSource, watch: Watch, *,
    prompt: str | None = None, with_probes: bool = False, size: Size = ALL,
) -> WhatIf:  # fmt: skip
    """Measure and write with the plan's units masked; nothing is cut, and the mask is always taken off.

    A streamed model is measured and writes nothing.
    """
    plan = session.need_plan()
    loaded = registry.dense(session.key, watch)
    prompt = prompt if prompt and loaded.can(WRITING) else ""
    evaluation = evaluation_set(text, loaded, size=size)
    watch.says("Perplexity of the dense model")
    dense = registry.dense_perplexity(
        (session.key, evaluation.fingerprint), lambda: _perplexity(loaded, evaluation, watch)
    )
    dense_writes = None
    if prompt.strip():
        watch.says("Writing as it is")
        dense_writes = _written(loaded, prompt, watch)
    watch.says("Perplexity behind masks")
    masked = _perplexity(loaded, evaluation, watch, plan)
    masked_writes = None
    if prompt.strip():
        watch.says("Writing behind masks")
        masked_writes = _written(loaded, prompt, watch, plan)
    answers: Answers = ()
    if with_probes:
        dense_probes = _dense_probes(registry, session.key, loaded, watch)
        watch.says("Probes behind masks")
        answers = _paired(dense_probes, _probes(loaded, watch, plan))
    return WhatIf(
        dense, masked, evaluation.num_tokens, text.name, dense_writes, masked_writes, answers, protocol(evaluation)
    )


def measure(
    registry: Registry,
    owner: str,
    result: Result,
    text: TextSource,
    watch: Watch,
    *,
    prompt: str | None = None,
    with_probes: bool = False,
    size: Size = ALL,
) -> Result:
    """The result with its report: against the dense model, on `text`, by the same protocol; probes where the model is
    ours.

    A streamed model is read once; it writes nothing, and no random plan is measured beside it.
    """
    loaded = registry.dense(result.scored.key, watch)
    pruned = pruned_model(registry, owner, result, watch)
    evaluation = evaluation_set(text, loaded, size=size)
    watch.says(f"Measuring on {text.name}")
    report = zerogpu.forward(
        ta.evaluate, pruned, evaluation,
        tokens=2 * evaluation.num_tokens, steps=SPEED_STEPS + 2 * evaluation.num_samples, progress=_evaluating(watch),
        reference=loaded, prompt=prompt if loaded.can(WRITING) else None, speed=size.beside,
    )  # fmt: skip
    registry.dense_perplexity((result.scored.key, evaluation.fingerprint), lambda: report.reference_perplexity)
    floor = report.perplexity if size.beside and not loaded.is_streamed else None
    if floor is not None and result.metric != "random":
        watch.says("The floor: a random plan of the same sizes")
        floor = _perplexity(loaded, evaluation, watch, _random_like(result.plan))
    answers: Answers = ()
    if with_probes:
        dense_probes = _dense_probes(registry, result.scored.key, loaded, watch)
        watch.says("Probes of the pruned model")
        answers = _paired(dense_probes, _probes(pruned, watch))
    return replace(
        result,
        report=report,
        text=text,
        probes=_shares(answers),
        answers=answers,
        floor=floor,
        overlap=evaluation.overlap(result.scored.calibration),
        tokens=size.tokens,
        protocol=protocol(evaluation),
    )


def measure_unless_stopped(
    registry: Registry, owner: str, result: Result, text: TextSource, watch: Watch, **settings
) -> Result:
    """`measure`; where it is stopped the result as it is, for one that took its time to make."""
    try:
        return measure(registry, owner, result, text, watch, **settings)
    except ta.Cancelled:
        return result


def _random_like(plan: ta.PruningPlan) -> ta.PruningPlan:
    """A plan that keeps as much of each layer as `plan`, chosen by chance (seed 0)."""
    return ta.make_plan(ta.ImportanceScores.random(plan.dense_spec), plan.dense_spec, plan_of_choice.counts_of(plan))


def _on_model(call: Callable, loaded: ta.LoadedModel, plan: ta.PruningPlan | None, *arguments, **named):
    """A forward pass, behind the plan's mask where there is one."""
    if plan is None:
        return zerogpu.forward(call, loaded, *arguments, **named)
    return zerogpu.behind_mask(call, loaded, plan, *arguments, **named)


def _perplexity(
    loaded: ta.LoadedModel, evaluation: ta.EvaluationSet, watch: Watch, plan: ta.PruningPlan | None = None
) -> float:
    size = {"tokens": evaluation.num_tokens, "steps": evaluation.num_samples}
    return _on_model(ta.perplexity, loaded, plan, evaluation, progress=watch, **size)


def _written(loaded: ta.LoadedModel, prompt: str, watch: Watch, plan: ta.PruningPlan | None = None) -> str:
    size = {"tokens": len(prompt) + WRITTEN_TOKENS, "steps": WRITTEN_TOKENS}
    return _on_model(ta.generate, loaded, plan, prompt, progress=watch, **size)


def _probes(loaded: ta.LoadedModel, watch: Watch, plan: ta.PruningPlan | None = None) -> list[ta.ProbeResult]:
    results = []
    for probe in ta.load_probes():
        watch.shows(f"Probe: {probe.kind}")
        size = {"tokens": PROBE_ITEMS * PROBE_TOKENS, "steps": PROBE_ITEMS}
        results.append(
            _on_model(ta.run_probe, loaded, plan, probe, progress=watch, limit=PROBE_ITEMS, answers=True, **size)
        )
    return results


def _dense_probes(registry: Registry, key: ModelKey, loaded: ta.LoadedModel, watch: Watch) -> list[ta.ProbeResult]:
    def run() -> list[ta.ProbeResult]:
        watch.says("Probes of the dense model")
        return _probes(loaded, watch)

    return registry.dense_probes(key, run)


def _evaluating(watch: Watch) -> ta.Progress:
    """The progress of `evaluate`, which reads, times and writes, as three steps that its units tell apart."""
    titles = ["Timing both", "Both write"]

    def told(done: int, total: int, unit: str) -> None:
        if titles and (unit == "speed rounds") == (len(titles) == 2):
            watch.says(titles.pop(0))
        watch(done, total, unit)

    return told


def _paired(before: list[ta.ProbeResult], after: list[ta.ProbeResult]) -> Answers:
    return tuple(zip(before, after, strict=True))


def _shares(answers: Answers) -> tuple[tuple[str, float, float], ...]:
    return tuple((one.kind, one.accuracy, other.accuracy) for one, other in answers)


def steadiness(registry: Registry, session: Session, watch: Watch) -> Steadiness:
    """Whether more text would choose otherwise; resamples what was recorded, no text is read again."""
    scored = session.need_scored()
    session.need_plan()
    loaded = registry.dense(session.key, watch)
    watch.says("Choosing again from parts of the text")
    stability = ta.stability(
        loaded, scored.statistics, plan_of_choice.target(session.spec, session.choice), metric=session.choice.metric,
        allocation=plan_of_choice.allocation(session.choice), progress=watch,
    )  # fmt: skip
    return Steadiness(scored, session.choice.metric, stability)


def redundancy(registry: Registry, session: Session, text: TextSource, watch: Watch) -> Redundancy:
    """Perplexity behind masks over a grid of both sparsities; every point is shown as it comes."""
    scored, metric = session.need_scored(), session.choice.metric
    loaded = registry.dense(session.key, watch)
    streamed.refuse(loaded, "The map would read all of them for every point. “Try” and “Prune” measure one plan.")
    few = None if session.spec.num_parameters <= MAP_WHOLE_TEXT else MAP_SEQUENCES
    evaluation = evaluation_set(text, loaded, num_samples=few)
    grid = ta.sparsity_grid(session.spec, mlp=MAP_MLP_SPARSITIES)
    measured = Redundancy(scored, metric, text, len(grid), evaluation.num_samples)
    watch.says("Mapping the redundancy")
    watch(0, len(grid), "points")

    at_once = len(grid) if zerogpu.LENT else 1  # every request for a lent GPU waits anew
    for start in range(0, len(grid), at_once):
        points = zerogpu.forward(
            _swept, loaded, scored.scores[metric], grid[start : start + at_once], evaluation,
            tokens=at_once * evaluation.num_tokens, steps=at_once * evaluation.num_samples,
            progress=watch.raise_if_cancelled,
        )  # fmt: skip
        measured = replace(measured, points=(*measured.points, *points))
        watch.finds(measured)
        watch(len(measured.points), len(grid), "points")
    return measured


def _swept(*arguments, **named) -> tuple[ta.SweepPoint, ...]:
    return tuple(ta.sweep(*arguments, **named))


def generate(registry: Registry, session: Session, prompt: str, watch: Watch) -> tuple[str, str | None]:
    """Greedy continuations of the same prompt by the dense and, where there is one, the pruned model."""
    loaded = registry.dense(session.key, watch)
    streamed.refuse(loaded, "Writing would read all of them for every token. Let the pruned model write elsewhere.")
    watch.says("Writing with the dense model")
    dense = _written(loaded, prompt, watch)
    if session.latest is None:
        return dense, None
    pruned = pruned_model(registry, session.id, session.latest, watch)
    watch.says("Writing with the pruned model")
    return dense, _written(pruned, prompt, watch)
