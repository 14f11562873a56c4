"""Load a model, bring a link's settings back, score a calibration text, and estimate what that would take."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import transact as ta
from ui.server import limits, zerogpu
from ui.state import plan_of_choice, slider_steps
from ui.state.session import ModelKey, Sampling, Scored, Session, Settings, Timeline
from ui.state.view import View
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource
from ui.work import gallery, streamed, text_extent
from ui.work.registry import Registry
from ui.work.step_costs import scoring_flops, scoring_passes
from ui.work.watch import Watch

_TOP_READS = 8
_SHOWN_SECONDS = 2.0
"""Scores so far are shown no more often: drawing them takes time from the work."""
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
    loaded = registry.dense(key, watch)
    registry.time(key, watch)
    return loaded


def opened(session: Session, key: ModelKey, loaded: ta.LoadedModel, scored: Scored | None) -> Session:
    """The session after a model was loaded: its controls start afresh, its history stays.

    Where a link waits for this model, the controls start as it says; where the gallery's facts of the same shapes were
    in view, they stay as they are.
    """
    return _started(session, key, loaded.spec, scored, streamed=loaded.is_streamed)


def opened_from_gallery(session: Session, scored: Scored) -> Session:
    """The session at a model of the gallery, as `opened`."""
    return _started(session, scored.key, scored.spec, scored, streamed=False)


def _started(session: Session, key: ModelKey, spec: ta.ModelSpec, scored: Scored | None, *, streamed: bool) -> Session:
    is_same_in_gallery = not session.key.has_weights and session.spec == spec
    choice = session.choice if is_same_in_gallery else slider_steps.start(spec)
    options, pending = session.options, session.pending
    if pending is not None and pending.key == key:
        choice, options, pending = pending.choice, pending.options, None
        scored = None if key.has_weights else scored
    return plan_of_choice.planned(
        replace(
            session, key=key, spec=spec, streamed=streamed, scored=scored, choice=choice, options=options,
            plan=None,
            view=View(), second=None, steadiness=None, redundancy=None, recovery=None, pending=pending,
            timeline=Timeline(), queue=(),
        )
    )  # fmt: skip


def restored(
    registry: Registry, session: Session, settings: Settings, text: TextSource, watch: Watch
) -> Callable[[Session], Session]:
    """The change that brings a session to a link's settings: the model loaded, the text scored, a plan made.

    Raises whatever loading, scoring or planning raises, before anything is changed.
    """
    if not settings.key.has_weights:
        facts = gallery.scored(settings.key)
        change = partial(_restored_from_gallery, settings, facts)
    else:
        loaded = load(registry, settings.key, watch)
        scored = score(registry, settings.key, text, settings.sampling, watch)
        change = partial(_restored, settings, loaded, scored)

    change(session)
    return change


def _restored(settings: Settings, loaded: ta.LoadedModel, scored: Scored, old: Session) -> Session:
    arrived = opened(replace(old, pending=settings), settings.key, loaded, None)
    return plan_of_choice.planned(replace(arrived, scored=scored))


def _restored_from_gallery(settings: Settings, scored: Scored, old: Session) -> Session:
    return opened_from_gallery(replace(old, pending=settings), scored)


def score(
    registry: Registry, key: ModelKey, text: TextSource, sampling: Sampling, watch: Watch, *, in_parts: bool = False
) -> Scored:
    """Run the calibration text through the model and score by every metric.

    With `in_parts`, the scores so far are found (`watch.finds`) now and then while the text passes, and a stop keeps
    them once there are any: `Scored.is_part` then. Of a streamed model, and on a lent GPU, there are none so far.
    """
    loaded = registry.dense(key, watch)
    sampling = _settled(text, sampling, loaded)
    known = registry.scored(key, text, sampling)
    if known is not None:
        return known
    calibration = text_extent.calibration(text, loaded, sampling)
    if sampling.taylor:
        streamed.refuse(loaded, "Gradients take all of them at once. Leave “Also gradients” out.")
    run = _ScoringRun(loaded, key, text, sampling, calibration, watch)
    statistics = run.observed(registry, in_parts=in_parts)
    scored = run.scored(statistics)
    if not scored.is_part:
        flops = scoring_flops(loaded.spec, calibration.num_tokens, calibration.input_ids.shape[1], sampling)
        registry.speeds.note_forward(key, flops, scored.seconds)
        registry.keep_scored(scored)
    return scored


class _ScoringRun:
    """A model and the text that it reads, and when it began."""

    def __init__(
        self, loaded: ta.LoadedModel, key: ModelKey, text: TextSource, sampling: Sampling,
        calibration: ta.CalibrationSet, watch: Watch,
    ):  # fmt: skip
        self.loaded, self.key, self.text, self.sampling = loaded, key, text, sampling
        self.calibration, self.watch = calibration, watch
        self.began = self._shown = time.monotonic()

    def observed(self, registry: Registry, *, in_parts: bool) -> ta.ActivationStatistics:
        """The statistics of the text, or of as much of it as was read until a stop."""
        loaded, calibration, watch = self.loaded, self.calibration, self.watch
        samples = ta.sample_bytes(loaded.spec, calibration.num_samples) <= _SAMPLE_BYTES
        kept = {"top_k": _TOP_READS, "samples": samples}
        if loaded.is_streamed:
            watch.says(f"Scoring on {self.text.name}, layer by layer: maps at its end")
            return streamed.observe(registry, loaded, calibration, watch, **kept)
        watch.says(f"Scoring on {self.text.name}")
        parts = {"progress": watch}
        if in_parts and not zerogpu.LENT:
            parts = {"progress": watch.note, "report": self._report, "stop": watch.stop.is_set}
        return zerogpu.forward(
            ta.observe, loaded, calibration, tokens=scoring_passes(self.sampling) * calibration.num_tokens,
            steps=calibration.num_samples, taylor=self.sampling.taylor,
            queries=loaded.layout.no_head_dim_pruning_reason is None, **parts, **kept,
        )  # fmt: skip

    def _report(self, so_far: Callable[[], ta.ActivationStatistics]) -> None:
        """Find the scores so far, the first at once, and then whenever half as much time again has gone by."""
        now = time.monotonic()
        if self.watch.found is None or now - self._shown >= max(_SHOWN_SECONDS, 0.5 * (self._shown - self.began)):
            self._shown = now
            self.watch.finds(self.scored(so_far()))

    def scored(self, statistics: ta.ActivationStatistics) -> Scored:
        """The scores by every metric; quick, so that a stop comes after it."""
        seconds = time.monotonic() - self.began
        scores = {
            metric: ta.score(self.loaded, statistics, metric=metric, seed=self.sampling.seed)
            for metric in ta.available_metrics(statistics)
        }
        read = statistics.calibration.num_samples
        return Scored(
            key=self.key,
            spec=self.loaded.spec,
            text=self.text,
            sampling=self.sampling,
            calibration=self.calibration.longest(read),
            tokenizer=self.loaded.tokenizer,
            seconds=seconds,
            statistics=statistics,
            scores=scores,
            streamed=self.loaded.is_streamed,
            is_part=read < self.calibration.num_samples,
            held_out_tokens=_held_out_tokens(self.text, self.sampling, self.loaded),
        )


def _settled(text: TextSource, sampling: Sampling, loaded: ta.LoadedModel) -> Sampling:
    """The settings as they come into effect: a short context, or a text of which nothing can be held out."""
    held_out = sampling.held_out if text_source.parts(text, sampling.held_out)[1] is not None else 0.0
    return replace(sampling, seq_len=min(sampling.seq_len, loaded.context_length), held_out=held_out)


def _held_out_tokens(text: TextSource, sampling: Sampling, loaded: ta.LoadedModel) -> int:
    held_out = text_source.parts(text, sampling.held_out)[1]
    if held_out is None:
        return 0
    seq_len = min(text_source.EVALUATION_TOKENS, loaded.context_length)
    return text_source.evaluation_set(held_out, loaded, seq_len=seq_len).num_tokens


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
    return Run(text, loaded.spec, extent.tokens, extent.amount, extent.notes, registry.seconds_for(flops, session.key))
