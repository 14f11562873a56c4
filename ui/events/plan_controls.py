"""Steps 3 and 4: the controls that plan anew or draw anew, and need no model."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import gradio as gr

import transact as ta
from ui import figures
from ui.context import AppContext
from ui.events.panels import Panels
from ui.events.runner import bound, explained, quick, say
from ui.format import numbers
from ui.pages import layer, maps, rules
from ui.server.limits import counted, one_of, share_left, share_removed
from ui.state import budgets, plan_of_choice, slider_steps
from ui.state.choice import Budget
from ui.state.session import Choice, Session


def connect(context: AppContext, panels: Panels) -> None:
    """Wire metric, scale, sliders, limits, allocation, the layers' counts, undo, redo and reset."""
    own, ruled = panels.maps, panels.rules
    # Raw values, so that a number out of range is explained by a message of ours.
    raw = {"trigger_mode": "always_last", "preprocess": False, "queue": False, **panels.light}

    def handler(function: Callable) -> Callable:
        return bound(function, context, panels)

    # One event for both sliders, so that two moves in a row are never answered in the wrong order.
    sliders, limits = [own.attention, own.mlp], [ruled.kind, ruled.share]
    moved = gr.on([slider.input for slider in sliders], handler(on_sliders), sliders, panels.marked, **raw)
    moved.then(handler(on_moved), None, panels.followers, trigger_mode="always_last", **panels.light)
    limited = ruled.share.input(handler(on_share), limits, panels.marked, **raw)
    limited.then(handler(on_moved), None, panels.followers, trigger_mode="always_last", **panels.light)
    for control, function in (
        (ruled.kind, on_kind),
        (ruled.allocation, on_allocation),
        (ruled.granularity, on_granularity),
    ):
        chosen = control.input(handler(function), control, panels.marked, **panels.light)
        chosen.then(handler(on_moved), None, panels.followers, **panels.light)
    finer = own.finer.click(handler(on_finer), None, panels.marked, **panels.light)
    finer.then(handler(on_moved), None, panels.followers, **panels.light)
    own.metric.input(handler(on_metric), own.metric, panels.all, **panels.light)
    own.normalisation.input(handler(on_normalisation), own.normalisation, panels.all, **panels.light)
    for button, function in ((own.undo, on_undo), (own.redo, on_redo), (own.reset, on_reset)):
        button.click(handler(function), None, panels.all, **panels.light)
    typed_into = {"trigger_mode": "always_last", "preprocess": False, **panels.light}
    panels.layer.table.input(handler(on_table), panels.layer.table, panels.all, **typed_into)
    counts_of_layer = _counts_of_layer(panels)
    events = [slider.input for slider in counts_of_layer]
    gr.on(events, handler(on_layer_counts), counts_of_layer, panels.all, **raw)


def on_metric(context: AppContext, panels: Panels, metric, request: gr.Request) -> dict:
    def act() -> dict:
        name = one_of("metric", metric, ta.METRICS)
        session = choose(context, context.visitor(request), lambda old: replace(old.choice, metric=name))
        return panels.repaint(session, "plan")

    return quick(panels, act)


def on_normalisation(context: AppContext, panels: Panels, normalisation, request: gr.Request) -> dict:
    def act() -> dict:
        scale = one_of("scale", normalisation, figures.NORMALISATIONS)
        session = context.sessions.update(
            context.visitor(request), lambda old: replace(old, view=replace(old.view, normalisation=scale))
        )
        return maps.paint_maps(panels.maps, session)

    return quick(panels, act)


def on_sliders(context: AppContext, panels: Panels, attention, mlp, request: gr.Request) -> dict:
    owner = context.visitor(request)
    session = context.sessions.get(owner)
    choice = session.choice
    if session.spec is None or (attention, mlp) == (choice.attention, choice.mlp):
        return {panels.maps.note: maps.note_line(session)}
    try:
        asked = share_removed("attention", attention)
        legal_attention = slider_steps.nearest_attention(session.spec, asked, choice.granularity)
        legal_mlp = share_removed("MLP", mlp)
        changed = choose(
            context, owner,
            lambda old: replace(by_sliders(old.choice), attention=legal_attention, mlp=legal_mlp), control="sliders",
        )  # fmt: skip
    except Exception as error:
        return explained(panels, error)  # the boxes are left alone: they may be half typed
    updates = {**say(panels, ""), **panels.repaint(changed, "marks")}
    if choice.budget is not None:
        updates |= {panels.rules.kind: rules.SLIDERS, panels.rules.share: rules.share_update(changed)}
    if attention == legal_attention:
        return updates
    units = maps.UNITS[choice.granularity][2]
    asked, nearest = (numbers.percent(share, 1) for share in (attention, legal_attention))
    snapped = f"{asked} of the {units} is no whole number of them; the nearest is {nearest}."
    return {**updates, panels.maps.attention: legal_attention, **say(panels, snapped)}


def on_moved(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return panels.repaint(context.sessions.get(context.visitor(request)), "followers")


def on_kind(context: AppContext, panels: Panels, kind, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def act() -> Session:
        session = context.sessions.get(owner)
        if session.spec is None or kind == rules.SLIDERS:
            return choose(context, owner, lambda old: replace(old.choice, budget=None))
        limit = one_of("limit", kind, budgets.BUDGETS)
        return _limited(context, owner, Budget(limit, budgets.current_share(session.spec, session.plan, limit)))

    return _settled(context, panels, owner, act)


def on_share(context: AppContext, panels: Panels, kind, share, request: gr.Request) -> dict:
    owner = context.visitor(request)
    session = context.sessions.get(owner)
    if session.spec is None or kind == rules.SLIDERS or Budget(kind, share) == session.choice.budget:
        return {panels.maps.note: maps.note_line(session)}
    try:
        one_of("limit", kind, budgets.BUDGETS)
        limited = _limited(context, owner, Budget(kind, share_left(share)), control="share")
        return {**say(panels, ""), **_controls(panels, limited)}
    except Exception as error:
        return explained(panels, error)  # the box is left alone: it may be half typed


def on_allocation(context: AppContext, panels: Panels, allocation, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def change(session: Session) -> Choice:
        one_of("allocation", allocation, (*ta.ALLOCATIONS, rules.BY_HAND))
        if allocation == rules.BY_HAND:
            return _as_counts(session)
        shared = by_sliders(session.choice) if session.choice.by_hand else session.choice
        return replace(shared, allocation=allocation)

    return _settled(context, panels, owner, lambda: choose(context, owner, change))


def on_granularity(context: AppContext, panels: Panels, granularity, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def change(session: Session) -> Choice:
        one_of("granularity", granularity, ta.GRANULARITIES)
        return _counted_in(session, granularity, session.choice.attention)

    return _settled(context, panels, owner, lambda: choose(context, owner, change))


def on_finer(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    owner = context.visitor(request)

    def change(session: Session) -> Choice:
        granularity = session.choice.granularity
        finer = slider_steps.gentler(session.spec, granularity, streamed=session.streamed) or granularity
        half = 0.5 / slider_steps.attention_units(session.spec, finer)  # rounded down: gentler removes no more
        return _counted_in(session, finer, max(0.0, session.choice.attention - half))

    return _settled(context, panels, owner, lambda: choose(context, owner, change))


def on_table(context: AppContext, panels: Panels, table, request: gr.Request) -> dict:
    owner = context.visitor(request)
    try:
        session = _by_hand(context, owner, *counts(layer.typed_rows(table)))
    except Exception as error:
        last_good = layer.paint_choice(panels.layer, context.sessions.get(owner))
        return {**explained(panels, error), panels.layer.table: last_good[panels.layer.table]}
    return {**replanned(panels, session), panels.layer.table: gr.skip(), panels.status.message: ""}


def on_layer_counts(context: AppContext, panels: Panels, groups, channels, request: gr.Request) -> dict:
    owner = context.visitor(request)
    session = context.sessions.get(owner)
    if session.plan is None:
        return {panels.status.message: ""}
    shapes, index = session.plan.spec.layers, session.view.selection.layer
    if (groups, channels) == (shapes[index].num_key_value_heads, shapes[index].intermediate_size):
        return {panels.maps.note: maps.note_line(session)}
    kept = [[shape.num_key_value_heads for shape in shapes], [shape.intermediate_size for shape in shapes]]
    try:
        kept[0][index], kept[1][index] = kept_of(index, "head groups", groups), kept_of(index, "channels", channels)
        changed = _by_hand(context, owner, tuple(kept[0]), tuple(kept[1]), control=f"layer {index}")
    except Exception as error:
        return explained(panels, error)
    # the two boxes themselves are left alone: a visitor types faster than the answer comes
    typed = {control: gr.skip() for control in _counts_of_layer(panels)}
    return {**replanned(panels, changed), **typed, **say(panels, "")}


def on_undo(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return step_to(context, panels, context.visitor(request), plan_of_choice.undone)


def on_redo(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return step_to(context, panels, context.visitor(request), plan_of_choice.redone)


def on_reset(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    def fresh(session: Session) -> Session:
        return plan_of_choice.chosen(session, slider_steps.start(session.spec)) if session.spec else session

    return step_to(context, panels, context.visitor(request), fresh)


def choose(context: AppContext, owner: str, change: Callable[[Session], Choice], control: str = "") -> Session:
    """Plan anew with the changed choice; on wrong input the session stays as it was."""
    return context.sessions.update(
        owner, lambda old: plan_of_choice.chosen(old, change(old), control=control) if old.spec else old
    )


def step_to(context: AppContext, panels: Panels, owner: str, step: Callable[[Session], Session]) -> dict:
    """The session as `step` makes it, such as one step back, and all that follows the plan."""
    return quick(panels, lambda: panels.repaint(context.sessions.update(owner, step), "plan"))


def replanned(panels: Panels, session: Session) -> dict:
    """What follows a new plan by the same metric."""
    return {**panels.repaint(session, "marks"), **panels.repaint(session, "followers")}


def by_sliders(choice: Choice) -> Choice:
    """The choice with neither a limit nor counts by hand, so that the sliders decide."""
    return replace(choice, budget=None, keep_head_groups=None, keep_channels=None)


def kept_of(index: int, units: str, value) -> int:
    """How many units a layer is to keep; raises `WrongInput` for anything but a whole number from 1.

    A cell that was typed into comes as text.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    return counted("units", f"The number of {units} that layer {index} is to keep", value)


def counts(rows: list[list]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Head groups and channels to keep, a number for each layer, from the edited table. Raises as `kept_of` does."""
    groups, channels = (
        tuple(kept_of(index, units, row[column]) for index, row in enumerate(rows))
        for column, units in ((1, "head groups"), (3, "channels"))
    )
    return groups, channels


def _counted_in(session: Session, granularity: str, share: float) -> Choice:
    """The choice with the attention slider where it removes about that share of other units."""
    attention = slider_steps.nearest_attention(session.spec, share, granularity)
    return replace(by_sliders(session.choice), granularity=granularity, attention=attention)


def _limited(context: AppContext, owner: str, budget: Budget, control: str = "") -> Session:
    return choose(context, owner, lambda old: budgets.with_budget(old.spec, by_sliders(old.choice), budget), control)


def _by_hand(
    context: AppContext, owner: str, groups: tuple[int, ...], channels: tuple[int, ...], control: str = ""
) -> Session:
    return choose(
        context,
        owner,
        lambda old: replace(by_sliders(old.choice), keep_head_groups=groups, keep_channels=channels),
        control,
    )


def _controls(panels: Panels, session: Session) -> dict:
    return {**panels.repaint(session, "controls"), **panels.repaint(session, "marks")}


def _settled(context: AppContext, panels: Panels, owner: str, act: Callable[[], Session]) -> dict:
    """A step of milliseconds by a control that has no half-typed value: refused, it stands again as it was."""
    try:
        return {**say(panels, ""), **_controls(panels, act())}
    except Exception as error:
        return {**quick(panels, lambda: _controls(panels, context.sessions.get(owner))), **explained(panels, error)}


def _counts_of_layer(panels: Panels) -> list[gr.Slider]:
    """How much the layer in view keeps."""
    return [panels.layer.groups, panels.layer.kept_channels]


def _as_counts(session: Session) -> Choice:
    """Begin setting by hand from what the sliders gave."""
    if session.plan is None:
        return session.choice
    kept = plan_of_choice.counts_of(session.plan)
    return replace(by_sliders(session.choice), keep_head_groups=kept.keep_head_groups, keep_channels=kept.keep_channels)
