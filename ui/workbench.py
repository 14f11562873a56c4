"""The steps of the work, each a function of typed values; the page and the endpoints both call these.

Whoever calls a step that takes `registry` runs it as a job, which holds the model lock.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import transact as ta
from transact.wording import with_memory
from ui import extents, legal, limits, planning, streamed, texts, zerogpu
from ui.jobs import Watch
from ui.link import Settings
from ui.models import Registry
from ui.session import (
    ModelKey,
    Redundancy,
    Result,
    Sampling,
    Scored,
    Session,
    Steadiness,
    Timeline,
    View,
)
from ui.texts import TextSource

EVALUATION_TOKENS = 512
"""Longest sequence that is measured; the bundled model's context."""
PROBE_ITEMS = 60
"""Items per probe; enough for steps of under 2 %, few enough for seconds."""


MAP_SEQUENCES = 40
"""Sequences that each point of the redundancy map is measured on; the map compares points, not models."""
MAP_MLP_SPARSITIES = tuple(step / 10 for step in range(10))
_TOP_READS = 8
_SEARCH_PASSES, _SPEED_STEPS, _WRITTEN_TOKENS, _PROBE_TOKENS = 30, 500, 80, 128
"""What the time on a lent GPU is asked for by: forward passes of a search (it takes eleven, some of them backward),
those that measure speed, tokens written at once, and tokens of a probe's item."""
_SAMPLE_BYTES = 256_000_000
"""Up to here the sums of every single sample are kept, which the stability check resamples."""


@dataclass(frozen=True)
class WhatIf:
    """The model as it stands and with the plan's units masked, on the same text, prompt and probes."""

    dense: float
    masked: float
    num_tokens: int
    text: str
    dense_writes: str | None = None
    masked_writes: str | None = None
    probes: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Run:
    """What scoring would read, and the seconds that it would take, None where nothing was timed yet.

    `amount` in words, `notes` on it; of a long text both are told from its beginning.
    """

    text: TextSource
    amount: str
    notes: tuple[str, ...]
    seconds: float | None


def load(registry: Registry, key: ModelKey, watch: Watch) -> ta.LoadedModel:
    """Bring a model into memory."""
    watch.says(f"Loading {key.source}")
    return registry.dense(key, watch)


def opened(session: Session, key: ModelKey, loaded: ta.LoadedModel, scored: Scored | None) -> Session:
    """The session after a model was loaded: its controls start afresh, its history stays.

    Where a link waits for this model, the controls start as it says.
    """
    choice, pending = legal.start(loaded.spec), session.pending
    if pending is not None and pending.key == key:
        choice, scored, pending = pending.choice, None, None
    return planning.planned(
        replace(
            session, key=key, spec=loaded.spec, streamed=loaded.is_streamed, scored=scored, choice=choice, plan=None,
            view=View(), second=None, steadiness=None, redundancy=None, recovery=None, pending=pending,
            timeline=Timeline(),
        )
    )  # fmt: skip


def restored(
    registry: Registry, session: Session, wanted: Settings, text: TextSource, watch: Watch
) -> Callable[[Session], Session]:
    """The change that brings a session to a link's settings: the model loaded, the text scored, a plan made.

    Raises whatever loading, scoring or planning raises, before anything is changed.
    """
    loaded = load(registry, wanted.key, watch)
    scored = score(registry, wanted.key, text, wanted.sampling, watch)

    def change(old: Session) -> Session:
        arrived = opened(replace(old, pending=wanted), wanted.key, loaded, None)
        return planning.planned(replace(arrived, scored=scored))

    change(session)
    return change


def score(registry: Registry, key: ModelKey, text: TextSource, sampling: Sampling, watch: Watch) -> Scored:
    """Run the calibration text through the model and score by every metric."""
    loaded = registry.dense(key, watch)
    sampling = replace(sampling, seq_len=min(sampling.seq_len, loaded.context_length))
    known = registry.scored(key, text, sampling)
    if known is not None:
        return known
    calibration = extents.calibration(text, loaded, sampling)
    if sampling.taylor:
        streamed.refuse(loaded, "Gradients take all of them at once. Leave “Also gradients” out.")
    watch.says(f"Scoring on {text.name}")
    began = time.monotonic()
    kept = {"top_k": _TOP_READS, "samples": ta.sample_bytes(loaded.spec, calibration.num_samples) <= _SAMPLE_BYTES}
    if loaded.is_streamed:
        statistics = streamed.observe(registry, loaded, calibration, watch, **kept)
    else:
        statistics = zerogpu.forward(
            ta.observe, loaded, calibration, tokens=_passes(sampling) * calibration.num_tokens,
            steps=calibration.num_samples, progress=watch, taylor=sampling.taylor,
            queries=loaded.layout.whole_heads is None, **kept,
        )  # fmt: skip
    seconds = time.monotonic() - began
    flops = _flops(loaded.spec, calibration.num_tokens, calibration.input_ids.shape[1], sampling)
    registry.note_speed(flops, seconds)
    scores = {
        metric: ta.score(loaded, statistics, metric=metric, seed=sampling.seed, progress=watch.heed)
        for metric in ta.available_metrics(statistics)
    }
    scored = Scored(
        key=key,
        spec=loaded.spec,
        text=text,
        sampling=sampling,
        calibration=calibration,
        tokenizer=loaded.tokenizer,
        seconds=seconds,
        statistics=statistics,
        scores=scores,
        streamed=loaded.is_streamed,
    )
    registry.keep_scored(scored)
    return scored


def estimate(registry: Registry, session: Session, text: TextSource, sampling: Sampling) -> Run | None:
    """What scoring would read and take, from the text's beginning; None while the model is not in memory."""
    loaded = registry.in_memory(session.key)
    if loaded is None:
        return None
    beginning = text.beginning(limits.MAX_ESTIMATED_CHARACTERS)
    whole = (len(text.texts), text.characters)
    known = (session.key, beginning, whole, replace(sampling, taylor=False))
    found = registry.extent(known, lambda: extents.of(text, beginning, loaded, sampling))
    flops = _flops(loaded.spec, found.tokens, found.longest, sampling)
    return Run(text, found.amount, found.notes, registry.seconds_for(flops))


def evaluation_set(text: TextSource, loaded: ta.LoadedModel, *, num_samples: int | None = None) -> ta.EvaluationSet:
    """The text in sequences as they are measured everywhere here; a few of them where the model is streamed."""
    seq_len = min(EVALUATION_TOKENS, loaded.context_length)
    tokens = texts.evaluation_set(text, loaded, seq_len=seq_len, num_samples=num_samples)
    limits.measured(tokens.num_tokens)
    return tokens.first(streamed.SEQUENCES) if loaded.is_streamed else tokens


def what_if(
    registry: Registry, session: Session, text: TextSource, watch: Watch, *, prompt: str = "", with_probes: bool = False
) -> WhatIf:
    """Measure and write with the plan's units masked; nothing is cut, and the mask is always taken off.

    A streamed model is measured and writes nothing.
    """
    plan = session.need_plan()
    loaded = registry.dense(session.key, watch)
    prompt = "" if loaded.is_streamed else prompt
    evaluation = evaluation_set(text, loaded)
    watch.says("Perplexity of the dense model")
    dense = _perplexity(loaded, evaluation, watch)
    dense_writes = _written(loaded, prompt, watch) if prompt.strip() else None
    watch.says("Perplexity behind masks")
    masked = _perplexity(loaded, evaluation, watch, plan)
    watch.says("Writing behind masks")
    masked_writes = _written(loaded, prompt, watch, plan) if prompt.strip() else None
    probes = ()
    if with_probes:
        probes = _paired(_dense_probes(registry, session.key, loaded, watch), _probes(loaded, watch, plan))
    return WhatIf(dense, masked, evaluation.num_tokens, text.name, dense_writes, masked_writes, probes)


def cut(registry: Registry, session: Session, repair: str, watch: Watch, *, search: bool = False) -> Result:
    """Prune as planned; the result is kept in the registry under its number.

    With `search`, what the best repair can do without is looked for first: as much in every layer as the plan says,
    and locks hold. Another repair takes the plan as it is.
    """
    plan, scored = session.need_plan(), session.need_scored()
    if search and repair == "best":
        loaded = registry.dense(session.key, watch)
        streamed.refuse(loaded, streamed.NOT_BEST)
        target = planning.same_amounts(session)
        needed = ta.search_bytes(loaded.spec, target, scored.calibration, loaded.dtype.itemsize)
        watch.says(with_memory("Searching what can go", needed))
        plan = zerogpu.forward(
            ta.search_plan, loaded, scored.statistics, target,
            tokens=_SEARCH_PASSES * scored.num_tokens, steps=_SEARCH_PASSES * scored.num_samples, progress=watch,
            locks=session.choice.locks,
        )  # fmt: skip
    result = Result(number=session.counted + 1, scored=scored, choice=session.choice, plan=plan, repair=repair)
    pruned_model(registry, session.id, result, watch)
    return result


def pruned_model(registry: Registry, owner: str, result: Result, watch: Watch) -> ta.LoadedModel:
    """The model of a result: from memory, or cut again from its plan."""
    held = registry.pruned(owner, result.identity)
    if held is not None:
        return held
    loaded = registry.dense(result.scored.key, watch)
    if loaded.is_streamed:
        return streamed.pruned(registry, owner, result, watch)
    if result.folder is not None:
        _, trained = ta.Savepoints(result.folder).last(loaded)
        registry.keep_pruned(owner, result.identity, trained)
        return trained
    statistics = result.scored.statistics
    if result.repair == "least_squares":
        statistics = _gram_statistics(registry, result.scored, loaded, watch)
    title = "Cutting and repairing" if result.repair != "none" else "Cutting"
    if result.repair == "best":
        title = with_memory(title, ta.best_bytes(result.plan, result.scored.calibration, loaded.dtype.itemsize))
    watch.says(title)
    pruned = ta.prune(loaded, result.plan, compensation=result.repair, statistics=statistics, progress=watch)
    registry.keep_pruned(owner, result.identity, pruned)
    return pruned


def write_checkpoint(
    registry: Registry, owner: str, result: Result, folder: Path, watch: Watch, *, layers: str = "padded"
) -> str:
    """The result's checkpoint in a new folder, proved where stock classes can load it; returns what to say of it."""
    # a model that was cut in memory and is still there needs no dense one beside it
    in_memory = not result.scored.streamed and registry.pruned(owner, result.identity) is not None
    if not in_memory and registry.dense(result.scored.key, watch).is_streamed:
        return streamed.write_checkpoint(registry, owner, result, folder, watch, layers)
    pruned = pruned_model(registry, owner, result, watch)
    stock = layers == "padded" or pruned.spec.is_stock
    proving = " and proving that stock transformers computes the same" if stock else ""
    watch.says(f"Writing the checkpoint{proving}")
    report = ta.save(pruned, folder, dtype=pruned.file_dtype, layers=layers, prove=stock, progress=watch)
    proved = [f"Stock transformers loads it as {report.model_class}.", report.proof.outcome] if stock else ["Written."]
    return " ".join((*proved, *report.notes))


def write_gguf(registry: Registry, owner: str, result: Result, file: Path, watch: Watch, *, file_type: str) -> str:
    """The result as one file for llama.cpp; returns what to say of it."""
    pruned = pruned_model(registry, owner, result, watch)
    streamed.refuse(pruned, "GGUF is written from memory. Download the checkpoint, and convert it with llama.cpp's own "
                    "convert_hf_to_gguf.py.")  # fmt: skip
    watch.says("Writing GGUF")
    report = ta.save_gguf(pruned, file, file_type=file_type, progress=watch)
    told = f"llama.cpp runs it as {report.architecture}, {report.bytes / 1e6:,.1f} MB."
    return " ".join((told, *report.notes))


def _gram_statistics(
    registry: Registry, scored: Scored, loaded: ta.LoadedModel, watch: Watch
) -> ta.ActivationStatistics:
    """Statistics for least squares, over the text that was scored: a second pass, made only for that repair."""
    if ta.grams_for_repair(loaded.spec) == "by_layer":
        return replace(scored.statistics, gram_by_layer=True)

    def observe() -> ta.ActivationStatistics:
        watch.says("Reading the text again for the repair")
        return zerogpu.forward(
            ta.observe, loaded, scored.calibration,
            tokens=scored.num_tokens, steps=scored.num_samples, progress=watch, gram=True,
        )  # fmt: skip

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
    """The result with its report: against the dense model, on `text`; probes where the model is ours.

    A streamed model is read once; it writes nothing, and no random plan is measured beside it.
    """
    loaded = registry.dense(result.scored.key, watch)
    pruned = pruned_model(registry, owner, result, watch)
    evaluation = evaluation_set(text, loaded)
    watch.says(f"Measuring on {text.name}")
    report = zerogpu.forward(
        ta.evaluate, pruned, evaluation,
        tokens=2 * evaluation.num_tokens, steps=_SPEED_STEPS + 2 * evaluation.num_samples, progress=watch,
        reference=loaded, prompt=None if loaded.is_streamed else prompt,
    )  # fmt: skip
    floor = None if loaded.is_streamed else report.perplexity
    if floor is not None and result.metric != "random":
        watch.says("The floor: a random plan of the same sizes")
        floor = _perplexity(loaded, evaluation, watch, _random_like(result.plan))
    probes = ()
    if with_probes:
        probes = _paired(_dense_probes(registry, result.scored.key, loaded, watch), _probes(pruned, watch))
    return replace(
        result,
        report=report,
        text=text,
        probes=probes,
        floor=floor,
        overlap=evaluation.overlap(result.scored.calibration),
    )


def _random_like(plan: ta.PruningPlan) -> ta.PruningPlan:
    """A plan that keeps as much of each layer as `plan`, chosen by chance (seed 0)."""
    return ta.make_plan(ta.ImportanceScores.random(plan.dense_spec), plan.dense_spec, planning.counts_of(plan))


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
    size = {"tokens": len(prompt) + _WRITTEN_TOKENS, "steps": _WRITTEN_TOKENS}
    return _on_model(ta.generate, loaded, plan, prompt, progress=watch, **size)


def _probes(loaded: ta.LoadedModel, watch: Watch, plan: ta.PruningPlan | None = None) -> list[ta.ProbeResult]:
    results = []
    for probe in ta.load_probes():
        watch.says(f"Probe: {probe.kind}")
        size = {"tokens": PROBE_ITEMS * _PROBE_TOKENS, "steps": PROBE_ITEMS}
        results.append(_on_model(ta.run_probe, loaded, plan, probe, progress=watch, limit=PROBE_ITEMS, **size))
    return results


def _dense_probes(registry: Registry, key: ModelKey, loaded: ta.LoadedModel, watch: Watch) -> list[ta.ProbeResult]:
    return registry.dense_probes(key, lambda: _probes(loaded, watch))


def _paired(before: list[ta.ProbeResult], after: list[ta.ProbeResult]) -> tuple[tuple[str, float, float], ...]:
    return tuple((one.kind, one.accuracy, other.accuracy) for one, other in zip(before, after, strict=True))


def steadiness(registry: Registry, session: Session, watch: Watch) -> Steadiness:
    """Whether more text would choose otherwise; resamples what was recorded, no text is read again."""
    scored = session.need_scored()
    session.need_plan()
    loaded = registry.dense(session.key, watch)
    watch.says("Choosing again from parts of the text")
    found = ta.stability(
        loaded, scored.statistics, planning.target(session.spec, session.choice), metric=session.choice.metric,
        allocation=planning.allocation(session.choice), progress=watch,
    )  # fmt: skip
    return Steadiness(scored, session.choice.metric, found)


def redundancy(registry: Registry, session: Session, text: TextSource, watch: Watch) -> Redundancy:
    """Perplexity behind masks over a grid of both sparsities; every point is shown as it comes."""
    scored, metric = session.need_scored(), session.choice.metric
    loaded = registry.dense(session.key, watch)
    streamed.refuse(loaded, "The map would read all of them for every point. “Try” and “Prune” measure one plan.")
    evaluation = evaluation_set(text, loaded, num_samples=MAP_SEQUENCES)
    grid = ta.sparsity_grid(session.spec, mlp=MAP_MLP_SPARSITIES)
    found = Redundancy(scored, metric, text, len(grid))
    watch.says("Mapping the redundancy")
    watch(0, len(grid), "points")

    at_once = len(grid) if zerogpu.LENT else 1  # every request for a lent GPU waits anew
    for start in range(0, len(grid), at_once):
        points = zerogpu.forward(
            _swept, loaded, scored.scores[metric], grid[start : start + at_once], evaluation,
            tokens=at_once * evaluation.num_tokens, steps=at_once * evaluation.num_samples, progress=watch.heed,
        )  # fmt: skip
        found = replace(found, points=(*found.points, *points))
        watch.finds(found)
        watch(len(found.points), len(grid), "points")
    return found


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


def _flops(spec: ta.ModelSpec, tokens: int, longest: int, sampling: Sampling) -> float:
    """Operations of scoring on so many tokens, in sequences of up to `longest`.

    A forward pass, and for gradients another and a backward pass (twice that).
    """
    return _passes(sampling) * tokens * float(spec.flops_per_token(context=longest // 2))


def _passes(sampling: Sampling) -> int:
    """Forward passes that scoring comes to: a backward pass counts twice."""
    return 4 if sampling.taylor else 1
