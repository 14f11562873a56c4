"""Recovery in the app: what it will cost, and the work itself, from typed values."""

from dataclasses import dataclass, replace

import transact as ta
from transact.planning.search import METRIC as SEARCH
from ui.errors import WrongInput
from ui.server import limits
from ui.state import plan_of_choice
from ui.state.measuring_size import ALL, Size
from ui.state.session import Recovery, Result, Sampling, Session, Training
from ui.text_sources.text_source import TextSource
from ui.work import measuring, pruning, streamed
from ui.work.registry import Registry
from ui.work.watch import Watch

SEQUENCES = 32
"""Evaluation sequences that the perplexities on the way are measured on; the result is measured on all."""
_BATCH = 8


@dataclass(frozen=True)
class Form:
    """The page's fields as they stand."""

    shots: float
    shot_tokens: float
    recovery_tokens: float
    learning_rate: float
    loss: str
    own_text: bool
    repair: str
    search: bool


@dataclass(frozen=True)
class Estimate:
    tokens: int
    bytes: int
    seconds: float | None


def training(session: Session, form: Form) -> Training:
    """The form as settings. Raises `WrongInput`, `NotYet` or `InvalidOption` for what cannot be."""
    session.key.need_weights()
    shots = limits.counted("shots", "“Shots”", form.shots)
    between = limits.counted("tokens", "“Tokens between the shots”", form.shot_tokens)
    after = limits.counted("tokens", "“Tokens after the last shot”", form.recovery_tokens)
    between = between if shots > 1 else 0  # one shot has nothing in between
    limits.trained(between + after)
    learning_rate = limits.rate("The learning rate", form.learning_rate)
    limits.one_of("repair", form.repair, ta.COMPENSATIONS)
    repair = ta.REPAIRS[form.repair]
    if repair.adds_bias:
        raise WrongInput("Bias repair cannot be trained on afterwards. Choose another repair after the cut.")
    searched = repair.takes_search and form.search
    seed = session.need_scored().sampling.seed
    settings = ta.RecoverySettings(
        shots=shots,
        shot_tokens=between,
        recovery_tokens=after,
        learning_rate=learning_rate,
        shot_rate_rise=1.0,
        batch_size=_BATCH,
        loss=form.loss,
        metric=SEARCH if searched else session.choice.metric,
        compensation=form.repair,
        evaluate_every=10,
        log_every=2,
        save_every=1_000_000,
        seed=seed,
    )
    return Training(settings, _own_samples(session, between + after) if form.own_text else 0)


def estimate(registry: Registry, session: Session, chosen: Training) -> Estimate:
    """What the training takes; seconds once anything was timed on this machine."""
    scored = session.need_scored()
    cost = ta.recovery_cost(
        session.spec,
        plan_of_choice.same_amounts(session),
        chosen.settings,
        seq_len=scored.calibration.input_ids.shape[1],
    )
    return Estimate(cost.tokens, cost.bytes, registry.seconds_for(cost.flops, session.key))


def recover(
    registry: Registry,
    session: Session,
    chosen: Training,
    text: TextSource,
    watch: Watch,
    *,
    size: Size = ALL,
) -> Result:
    """Cut and train as chosen; once something is cut, a stop keeps the best so far.

    Figures come through `watch.finds` as they are made.
    """
    scored = session.need_scored()
    loaded = registry.dense(session.key, watch)
    streamed.refuse(loaded, "Training takes all of them at once. Prune with a repair, as refitting (least squares).")
    evaluation = measuring.evaluation_set(text, loaded, size=size).first(SEQUENCES)
    one_shot = None
    if chosen.settings.shots > 1:
        watch.says("All cut at once, for comparison")
        with ta.masked(loaded, session.need_plan()):
            one_shot = ta.perplexity(loaded, evaluation, progress=watch)
    curves = Recovery(scored, chosen, text, one_shot)

    def report(point: ta.RecoveryPoint) -> None:
        nonlocal curves
        curves = replace(curves, points=(*curves.points, point))
        watch.finds(curves)
        watch.shows(_title(point))

    own = _own_text(loaded, scored.sampling, chosen.own_samples, watch) if chosen.own_samples else None
    watch.says("Cutting")
    target = plan_of_choice.same_amounts(session)
    recovered = ta.recover(
        loaded,
        scored.calibration,
        target,
        chosen.settings,
        training=own,
        evaluation=evaluation,
        locks=session.choice.locks,
        report=report,
        stop=watch.stop.is_set,
        progress=watch.note,
    )
    plan = replace(recovered.plan, requested=target.requested)  # the shots asked for it in pieces
    return _kept(registry, session, recovered.pruned, plan, replace(curves, stopped=recovered.stopped))


def recover_and_measure(
    registry: Registry, session: Session, chosen: Training, text: TextSource, watch: Watch, **settings
) -> Result:
    """`recover`, and its result measured, unless that is stopped."""
    result = recover(registry, session, chosen, text, watch, size=settings.get("size", ALL))
    return measuring.measure_unless_stopped(registry, session.id, result, text, watch, **settings)


def _own_text(loaded: ta.LoadedModel, sampling: Sampling, num_samples: int, watch: Watch) -> ta.CalibrationSet:
    """What the dense model writes by itself."""
    watch.says("The dense model writes what to train on")
    return ta.CalibrationSet.from_model(
        loaded, num_samples=num_samples, seq_len=sampling.seq_len, seed=sampling.seed, progress=watch
    )


def _kept(
    registry: Registry, session: Session, pruned: ta.LoadedModel, plan: ta.PruningPlan, curves: Recovery
) -> Result:
    """The session's next result."""
    result = Result(
        number=session.counted + 1,
        scored=curves.scored,
        choice=session.choice,
        plan=plan,
        repair=curves.training.settings.compensation,
        recovery=curves,
    )
    return pruning.keep_trained(registry, session, result, pruned)


def _title(point: ta.RecoveryPoint) -> str:
    return {"dense": "Cutting", "recovery": "Training after the last shot"}.get(point.phase, point.phase.capitalize())


def _own_samples(session: Session, tokens: int) -> int:
    """As many sequences as are read once, within what is written in a moment."""
    length = session.need_scored().sampling.seq_len
    return max(_BATCH, min(512, tokens // length))
