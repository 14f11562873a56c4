"""From what the controls say to a plan, and back and forth in time: no model, no waiting."""

from dataclasses import replace

import transact as ta
from ui.errors import NotYet
from ui.server import limits
from ui.state import budgets
from ui.state.options import HELD_OUT
from ui.state.session import Choice, Moment, Scored, Session, Timeline


def planned(session: Session) -> Session:
    """The session with the plan that its controls ask for; needs no model and takes milliseconds.

    Raises `InvalidTarget` where the controls ask for what cannot be, `WrongInput` for a metric that was not scored.
    """
    if session.scored is None:
        return replace(session, plan=None)
    choice = session.choice
    scores = session.scored.scores[limits.one_of("metric", choice.metric, session.scored.scores)]
    plan = ta.make_plan(
        scores, session.spec, target(session.spec, choice), allocation=allocation(choice), locks=choice.locks
    )
    return replace(session, plan=plan)


def target(spec: ta.ModelSpec, choice: Choice) -> ta.PruningTarget:
    """How much to keep, from counts set by hand, from one limit, or from the two sliders."""
    if choice.by_hand:
        sliders = _sliders(spec, choice)
        inside = {name: getattr(sliders, name) for name in ta.INSIDE_HEADS}  # None with whole head groups
        return ta.PruningTarget(choice.keep_head_groups, choice.keep_channels, **inside)
    if choice.budget is not None:
        return budgets.target(spec, choice.budget)
    return _sliders(spec, choice)


def _sliders(spec: ta.ModelSpec, choice: Choice) -> ta.PruningTarget:
    return ta.PruningTarget.from_sparsity(
        spec, attention=choice.attention, mlp=choice.mlp, granularity=choice.granularity
    )


def allocation(choice: Choice) -> str:
    """How the target is shared among layers; counts by hand have shared it already."""
    return "uniform" if choice.by_hand else choice.allocation


def chosen(session: Session, choice: Choice, *, control: str = "") -> Session:
    """The session planned anew with another choice; the one before can be undone.

    Moves of the same `control` in quick succession are one step. Raises `InvalidTarget` as `planned` does.
    """
    return moved_to(session, Moment(session.scored, choice), control=control)


def rescored(session: Session, scored: Scored, *, instead_of: Scored | None = None) -> Session:
    """The session on other scores of its model; those before can be brought back by undo.

    A metric that they lack, as one of gradients that were not taken, gives way to the standard one. Where the scores in
    view are `instead_of`, of less of the same text, these take their place and undo does not bring them back. What is
    held out of their text measures from then on.
    """
    if scored.key != session.key:
        return session
    if scored.held_out is not None and scored is not session.scored:
        session = replace(session, options=replace(session.options, measure_on=HELD_OUT))
    choice = session.choice
    if choice.metric not in scored.scores:
        choice = replace(choice, metric=Choice().metric)
    if session.scored is None or session.scored is instead_of:
        return planned(replace(session, scored=scored, choice=choice))
    return moved_to(session, Moment(scored, choice))


def taken_back(session: Session, part: Scored | None, before: Session) -> Session:
    """The session without the scores so far of a run that failed, on those that it had before."""
    if part is None or session.scored is not part:
        return session
    choice = session.choice if before.scored is None or session.choice.metric in before.scored.scores else before.choice
    return planned(replace(session, scored=before.scored, choice=choice, timeline=before.timeline))


def moved_to(session: Session, moment: Moment, *, control: str = "") -> Session:
    """The session at other scores and another choice, in one step that can be undone.

    Raises `InvalidTarget` where these choose what cannot be.
    """
    now = _now(session)
    if moment.scored is now.scored and moment.choice == now.choice:
        return session
    return _at(session, moment, session.timeline.after(now, control))


def undone(session: Session) -> Session:
    """One step back. Raises `NotYet` at the beginning."""
    past, future = session.timeline.past, session.timeline.future
    if not past:
        raise NotYet("There is nothing to undo.")
    return _at(session, past[-1], Timeline(past[:-1], (_now(session), *future)))


def redone(session: Session) -> Session:
    """One step forward again. Raises `NotYet` at the end."""
    past, future = session.timeline.past, session.timeline.future
    if not future:
        raise NotYet("There is nothing to redo.")
    return _at(session, future[0], Timeline((*past, _now(session)), future[1:]))


def _now(session: Session) -> Moment:
    return Moment(session.scored, session.choice)


def _at(session: Session, moment: Moment, timeline: Timeline) -> Session:
    return planned(replace(session, scored=moment.scored, choice=moment.choice, timeline=timeline))


def same_amounts(session: Session) -> ta.PruningTarget:
    """The target of the plan in view; where layers differ, its counts."""
    if allocation(session.choice) == "uniform":
        return target(session.spec, session.choice)
    return counts_of(session.plan)


def counts_of(plan: ta.PruningPlan) -> ta.PruningTarget:
    """As much in every layer as that plan keeps."""
    shapes = plan.spec.layers
    return ta.PruningTarget(
        keep_head_groups=tuple(shape.num_key_value_heads for shape in shapes),
        keep_channels=tuple(shape.intermediate_size for shape in shapes),
        keep_heads_per_group=plan.spec.group_size if plan.cuts_inside_groups else None,
        **plan.cuts_inside_heads,
    )
