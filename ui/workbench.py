"""The steps of the work, each a function of typed values; the page and the endpoints both call these.

Whoever calls a step that takes `registry` runs it as a job, which holds the model lock.
"""

import time
from dataclasses import dataclass, replace
from functools import partial

import transact as ta
from ui import legal, texts
from ui.jobs import Watch
from ui.landscape import Landscape
from ui.registry import Registry
from ui.session import Choice, ModelKey, Result, Sampling, Scored, Session
from ui.texts import TextSource

EVALUATION_TOKENS = 512
"""Longest sequence that is measured; the bundled model's context."""
PROBE_ITEMS = 60
"""Items per probe; enough for steps of under 2 %, few enough for seconds."""


@dataclass(frozen=True)
class WhatIf:
    """Perplexity as the model stands and with the plan's units masked, on the same text."""

    dense: float
    masked: float
    num_tokens: int
    text: str


def load(registry: Registry, key: ModelKey, watch: Watch) -> ta.LoadedModel:
    """Bring a model into memory."""
    watch.says(f"Loading {key.source}")
    return registry.dense(key, watch)


def opened(session: Session, key: ModelKey, loaded: ta.LoadedModel, scored: Scored | None) -> Session:
    """The session after a model was loaded: its controls start afresh, its history stays."""
    fresh = replace(session, key=key, spec=loaded.spec, scored=scored, choice=legal.start(loaded.spec), plan=None)
    return planned(fresh)


def score(registry: Registry, key: ModelKey, text: TextSource, sampling: Sampling, watch: Watch) -> Scored:
    """Run the calibration text through the model and score by every metric."""
    loaded = registry.dense(key, watch)
    sampling = replace(sampling, seq_len=min(sampling.seq_len, loaded.context_length))
    known = registry.scored(key, text, sampling)
    if known is not None:
        return known
    calibration = _calibration(loaded, text, sampling)
    watch.says(f"Scoring on {text.name}")
    began = time.monotonic()
    statistics = ta.observe(loaded, calibration, progress=watch)
    seconds = time.monotonic() - began
    registry.note_speed(_flops(loaded.spec, calibration), seconds)
    scores = {metric: ta.score(loaded, statistics, metric=metric, seed=sampling.seed) for metric in ta.METRICS}
    scored = Scored(
        key=key,
        text=text,
        sampling=sampling,
        num_samples=calibration.num_samples,
        num_tokens=calibration.num_tokens,
        seconds=seconds,
        statistics=statistics,
        scores=scores,
        landscapes={metric: Landscape.of(values, loaded.spec) for metric, values in scores.items()},
    )
    registry.keep_scored(scored)
    return scored


def estimate(
    registry: Registry, session: Session, text: TextSource, sampling: Sampling
) -> tuple[int, int, float | None] | None:
    """Sequences, tokens and seconds that scoring would take; None while the model is not in memory."""
    loaded = registry.in_memory(session.key)
    if loaded is None:
        return None
    calibration = _calibration(loaded, text, sampling)
    seconds = registry.seconds_for(_flops(loaded.spec, calibration))
    return calibration.num_samples, calibration.num_tokens, seconds


def planned(session: Session) -> Session:
    """The session with the plan that its controls ask for; needs no model and takes milliseconds.

    Raises `InvalidTarget` where the controls ask for what cannot be.
    """
    if session.scored is None:
        return replace(session, plan=None)
    scores = session.scored.scores[session.choice.metric]
    return replace(session, plan=ta.make_plan(scores, session.spec, target(session.spec, session.choice)))


def target(spec: ta.ModelSpec, choice: Choice) -> ta.PruningTarget:
    """How much to keep, from the sliders or from the counts set by hand."""
    if choice.by_hand:
        return ta.PruningTarget(keep_head_groups=choice.keep_head_groups, keep_channels=choice.keep_channels)
    return ta.PruningTarget.from_sparsity(spec, attention=choice.attention, mlp=choice.mlp)


def what_if(registry: Registry, session: Session, text: TextSource, watch: Watch) -> WhatIf:
    """Measure perplexity with the plan's units masked; nothing is cut, and the mask is always taken off."""
    plan = session.need_plan()
    loaded = registry.dense(session.key, watch)
    evaluation = texts.evaluation_set(text, loaded, seq_len=min(EVALUATION_TOKENS, loaded.context_length))
    watch.says("Perplexity of the dense model")
    dense = ta.perplexity(loaded, evaluation, progress=watch)
    watch.says("Perplexity behind masks")
    with ta.masked(loaded, plan):
        masked = ta.perplexity(loaded, evaluation, progress=watch)
    return WhatIf(dense, masked, evaluation.num_tokens, text.name)


def cut(registry: Registry, session: Session, repair: str, watch: Watch) -> Result:
    """Prune as planned; the result is kept in the registry under its number."""
    result = Result(
        number=session.counted + 1,
        scored=session.need_scored(),
        metric=session.choice.metric,
        plan=session.need_plan(),
        repair=repair,
    )
    pruned_model(registry, session.id, result, watch)
    return result


def pruned_model(registry: Registry, owner: str, result: Result, watch: Watch) -> ta.LoadedModel:
    """The model of a result: from memory, or cut again from its plan."""
    held = registry.pruned(owner, result.number)
    if held is not None:
        return held
    loaded = registry.dense(result.scored.key, watch)
    statistics = None if result.repair == "none" else _gram_statistics(registry, result.scored, loaded, watch)
    watch.says("Cutting")
    pruned = ta.prune(loaded, result.plan, compensation=result.repair, statistics=statistics)
    registry.keep_pruned(owner, result.number, pruned)
    return pruned


def _gram_statistics(
    registry: Registry, scored: Scored, loaded: ta.LoadedModel, watch: Watch
) -> ta.ActivationStatistics:
    """Statistics with Gram matrices, over the text that was scored: a second pass, made only for a repair."""

    def observe() -> ta.ActivationStatistics:
        calibration = _calibration(loaded, scored.text, scored.sampling)
        watch.says("Reading the text again for the repair")
        return ta.observe(loaded, calibration, gram=True, progress=watch)

    return registry.gram_statistics(scored, observe)


def measure(
    registry: Registry,
    owner: str,
    result: Result,
    text: TextSource,
    watch: Watch,
    *,
    prompt: str | None = None,
    with_probes: bool = False,
) -> Result:
    """The result with its report: against the dense model, on `text`; probes where the model is ours."""
    began = time.monotonic()
    loaded = registry.dense(result.scored.key, watch)
    pruned = pruned_model(registry, owner, result, watch)
    evaluation = texts.evaluation_set(text, loaded, seq_len=min(EVALUATION_TOKENS, loaded.context_length))
    watch.says(f"Measuring on {text.name}")
    report = ta.evaluate(pruned, evaluation, reference=loaded, prompt=prompt, progress=watch)
    probes = []
    for probe in ta.load_probes() if with_probes else ():
        watch.says(f"Probe: {probe.kind}")
        dense = partial(ta.run_probe, loaded, probe, limit=PROBE_ITEMS, progress=watch)
        before = registry.dense_probe(result.scored.key, probe.kind, dense)
        after = ta.run_probe(pruned, probe, limit=PROBE_ITEMS, progress=watch)
        probes.append((probe.kind, before.accuracy, after.accuracy))
    return replace(
        result,
        report=report,
        text=text,
        probes=tuple(probes),
        overlap=evaluation.overlap(_calibration(loaded, result.scored.text, result.scored.sampling)),
        seconds=time.monotonic() - began,
    )


def generate(registry: Registry, session: Session, prompt: str, watch: Watch) -> tuple[str, str | None]:
    """Greedy continuations of the same prompt by the dense and, where there is one, the pruned model."""
    loaded = registry.dense(session.key, watch)
    watch.says("Writing with the dense model")
    dense = ta.generate(loaded, prompt, progress=watch)
    if session.latest is None:
        return dense, None
    pruned = pruned_model(registry, session.id, session.latest, watch)
    watch.says("Writing with the pruned model")
    return dense, ta.generate(pruned, prompt, progress=watch)


def _flops(spec: ta.ModelSpec, calibration: ta.CalibrationSet) -> float:
    """Operations of one forward pass over the set."""
    longest = calibration.input_ids.shape[1]
    return calibration.num_tokens * float(spec.flops_per_token(context=longest // 2))


def _calibration(loaded: ta.LoadedModel, text: TextSource, sampling: Sampling) -> ta.CalibrationSet:
    return texts.calibration_set(
        text,
        loaded,
        num_samples=sampling.num_samples,
        seq_len=min(sampling.seq_len, loaded.context_length),
        seed=sampling.seed,
    )
