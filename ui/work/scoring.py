"""Load a model, bring a link's settings back, score a calibration text, and estimate what that would take."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import transact as ta
from ui.server import limits, zerogpu
from ui.state import plan_of_choice, slider_steps
from ui.state.session import ModelKey, Sampling, Scored, Session, Settings, Timeline, View
from ui.text_sources.text_source import TextSource
from ui.work import streamed, text_extent
from ui.work.registry import Registry
from ui.work.step_costs import scoring_flops, scoring_passes
from ui.work.watch import Watch

_TOP_READS = 8
_SAMPLE_BYTES = 256_000_000
"""Up to here the sums of every single sample are kept, which the stability check resamples."""


@dataclass(frozen=True, eq=False)
class Run:
    """What scoring would read, and the seconds that it would take, None where nothing was timed yet.

    `amount` in words, `notes` on it; of a long text both are estimated from its beginning.
    """

    text: TextSource
    spec: ta.ModelSpec
    tokens: int
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
    choice, pending = slider_steps.start(loaded.spec), session.pending
    if pending is not None and pending.key == key:
        choice, scored, pending = pending.choice, None, None
    return plan_of_choice.planned(
        replace(
            session, key=key, spec=loaded.spec, streamed=loaded.is_streamed, scored=scored, choice=choice, plan=None,
            view=View(), second=None, steadiness=None, redundancy=None, recovery=None, pending=pending,
            timeline=Timeline(),
        )
    )  # fmt: skip


def restored(
    registry: Registry, session: Session, settings: Settings, text: TextSource, watch: Watch
) -> Callable[[Session], Session]:
    """The change that brings a session to a link's settings: the model loaded, the text scored, a plan made.

    Raises whatever loading, scoring or planning raises, before anything is changed.
    """
    loaded = load(registry, settings.key, watch)
    scored = score(registry, settings.key, text, settings.sampling, watch)

    def change(old: Session) -> Session:
        arrived = opened(replace(old, pending=settings), settings.key, loaded, None)
        return plan_of_choice.planned(replace(arrived, scored=scored))

    change(session)
    return change


def score(registry: Registry, key: ModelKey, text: TextSource, sampling: Sampling, watch: Watch) -> Scored:
    """Run the calibration text through the model and score by every metric."""
    loaded = registry.dense(key, watch)
    sampling = replace(sampling, seq_len=min(sampling.seq_len, loaded.context_length))
    known = registry.scored(key, text, sampling)
    if known is not None:
        return known
    calibration = text_extent.calibration(text, loaded, sampling)
    if sampling.taylor:
        streamed.refuse(loaded, "Gradients take all of them at once. Leave “Also gradients” out.")
    watch.says(f"Scoring on {text.name}")
    began = time.monotonic()
    kept = {"top_k": _TOP_READS, "samples": ta.sample_bytes(loaded.spec, calibration.num_samples) <= _SAMPLE_BYTES}
    if loaded.is_streamed:
        statistics = streamed.observe(registry, loaded, calibration, watch, **kept)
    else:
        statistics = zerogpu.forward(
            ta.observe, loaded, calibration, tokens=scoring_passes(sampling) * calibration.num_tokens,
            steps=calibration.num_samples, progress=watch, taylor=sampling.taylor,
            queries=loaded.layout.no_head_dim_pruning_reason is None, **kept,
        )  # fmt: skip
    seconds = time.monotonic() - began
    flops = scoring_flops(loaded.spec, calibration.num_tokens, calibration.input_ids.shape[1], sampling)
    registry.note_speed(flops, seconds)
    scores = {
        metric: ta.score(loaded, statistics, metric=metric, seed=sampling.seed, progress=watch.raise_if_cancelled)
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
    extent = registry.extent(known, lambda: text_extent.of(text, beginning, loaded, sampling))
    flops = scoring_flops(loaded.spec, extent.tokens, extent.longest, sampling)
    return Run(text, loaded.spec, extent.tokens, extent.amount, extent.notes, registry.seconds_for(flops))
