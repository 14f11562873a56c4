"""Steps 3 and 4: everything that re-plans or re-draws and needs no model."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import gradio as gr

import transact as ta
from ui import figures
from ui.context import AppContext
from ui.errors import NotYet
from ui.events.panels import Panels
from ui.events.runner import explained, quick, say
from ui.pages import layer, maps
from ui.server.limits import counted, one_of, share_left, share_removed, whole
from ui.state import budgets, plan_of_choice, selection, slider_steps
from ui.state.session import Budget, Choice, Selection, Session

_PLAN_KEYS = {"undo": plan_of_choice.undone, "redo": plan_of_choice.redone}


def connect(context: AppContext, panels: Panels) -> None:
    """Wire metric, scale, sliders, limits, allocation, locks, layer controls, undo, and clicks in the figures."""

    def choose(owner: str, change: Callable[[Session], Choice], control: str = "") -> Session:
        """Plan anew with the changed choice; on wrong input the session stays as it was."""
        return context.sessions.update(
            owner, lambda old: plan_of_choice.chosen(old, change(old), control=control) if old.spec else old
        )

    def on_metric(metric, request: gr.Request):
        def act() -> dict:
            named = one_of("metric", metric, ta.METRICS)
            return panels.repaint_plan(choose(context.visitor(request), lambda old: replace(old.choice, metric=named)))

        return quick(panels, act)

    def on_normalisation(normalisation, request: gr.Request):
        def act() -> dict:
            scale = one_of("scale", normalisation, figures.NORMALISATIONS)
            session = context.sessions.update(
                context.visitor(request), lambda old: replace(old, view=replace(old.view, normalisation=scale))
            )
            return maps.paint_maps(panels.maps, session)

        return quick(panels, act)

    def on_sliders(attention, mlp, request: gr.Request):
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
                owner,
                lambda old: replace(_freed(old.choice), attention=legal_attention, mlp=legal_mlp),
                control="sliders",
            )
        except Exception as error:
            return explained(panels, error)  # the boxes are left alone: they may be half typed
        updates = {**say(panels, ""), **panels.repaint_marks(changed)}
        if choice.budget is not None:
            updates |= {panels.maps.kind: maps.SLIDERS, panels.maps.share: maps.share_update(changed)}
        if attention == legal_attention:
            return updates
        units = maps.UNITS[choice.granularity][2]
        snapped = f"{attention:g} of the {units} is no whole number of them; the nearest is {legal_attention:g}."
        return {**updates, panels.maps.attention: legal_attention, **say(panels, snapped)}

    def on_kind(kind, request: gr.Request):
        owner = context.visitor(request)

        def act() -> dict:
            session = context.sessions.get(owner)
            if session.spec is None or kind == maps.SLIDERS:
                return controls(choose(owner, lambda old: replace(old.choice, budget=None)))
            limit = one_of("limit", kind, budgets.BUDGETS)
            share = budgets.current_share(session.spec, session.plan, limit)
            return controls(limited(owner, Budget(limit, share), control=""))

        return settled(owner, act)

    def on_share(kind, share, request: gr.Request):
        owner = context.visitor(request)
        session = context.sessions.get(owner)
        if session.spec is None or kind == maps.SLIDERS or Budget(kind, share) == session.choice.budget:
            return {panels.maps.note: maps.note_line(session)}
        try:
            one_of("limit", kind, budgets.BUDGETS)
            return {**say(panels, ""), **controls(limited(owner, Budget(kind, share_left(share)), control="share"))}
        except Exception as error:
            return explained(panels, error)  # the box is left alone: it may be half typed

    def limited(owner: str, budget: Budget, control: str) -> Session:
        return choose(owner, lambda old: budgets.with_budget(old.spec, _freed(old.choice), budget), control)

    def controls(session: Session) -> dict:
        return {**maps.paint_controls(panels.maps, session), **panels.repaint_marks(session)}

    def settled(owner: str, act: Callable[[], dict]) -> dict:
        """A step of milliseconds by a control that has no half-typed value: refused, it stands again as it was."""
        try:
            return {**say(panels, ""), **act()}
        except Exception as error:
            return {**quick(panels, lambda: controls(context.sessions.get(owner))), **explained(panels, error)}

    def on_allocation(allocation, request: gr.Request):
        owner = context.visitor(request)

        def act() -> dict:
            def change(session: Session) -> Choice:
                one_of("allocation", allocation, (*ta.ALLOCATIONS, maps.BY_HAND))
                if allocation == maps.BY_HAND:
                    return _as_counts(session)
                shared = _freed(session.choice) if session.choice.by_hand else session.choice
                return replace(shared, allocation=allocation)

            return controls(choose(owner, change))

        return settled(owner, act)

    def on_granularity(granularity, request: gr.Request):
        owner = context.visitor(request)

        def act() -> dict:
            def change(session: Session) -> Choice:
                one_of("granularity", granularity, ta.GRANULARITIES)
                attention = slider_steps.nearest_attention(session.spec, session.choice.attention, granularity)
                return replace(_freed(session.choice), granularity=granularity, attention=attention)

            return controls(choose(owner, change))

        return settled(owner, act)

    def on_moved(request: gr.Request):
        return panels.repaint_followers(context.sessions.get(context.visitor(request)))

    def by_hand(owner: str, groups: tuple[int, ...], channels: tuple[int, ...], control: str = "") -> Session:
        return choose(
            owner,
            lambda old: replace(_freed(old.choice), keep_head_groups=groups, keep_channels=channels),
            control,
        )

    def on_table(table, request: gr.Request):
        owner = context.visitor(request)
        try:
            session = by_hand(owner, *counts(layer.typed_rows(table)))
        except Exception as error:
            last_good = layer.paint_choice(panels.layer, context.sessions.get(owner))
            return {**explained(panels, error), panels.layer.table: last_good[panels.layer.table]}
        followers = {**panels.repaint_followers(session), panels.layer.table: gr.skip()}
        return {**panels.repaint_marks(session), **followers, panels.status.message: ""}

    def on_layer_counts(groups, channels, request: gr.Request):
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
            changed = by_hand(owner, tuple(kept[0]), tuple(kept[1]), control=f"layer {index}")
        except Exception as error:
            return explained(panels, error)
        # the two boxes themselves are left alone: whoever types is quicker than the answer
        typed = {control: gr.skip() for control in counts_of_layer}
        return {**panels.repaint_marks(changed), **panels.repaint_followers(changed), **typed, **say(panels, "")}

    def show(owner: str, point: Callable[[Session], Selection]) -> dict:
        session = context.sessions.update(owner, lambda old: replace(old, view=replace(old.view, selection=point(old))))
        return {**panels.repaint_selection(session), panels.layer.select: session.view.selection.layer}

    def on_layer(index, request: gr.Request):
        def point(session: Session) -> Selection:
            layers = 1 if session.spec is None else session.spec.num_hidden_layers
            now, chosen = session.view.selection, whole("The layer in view", index or 0, 0, layers - 1)
            return now if now.layer == chosen else Selection(chosen)

        return quick(panels, lambda: show(context.visitor(request), point))

    def on_pointed(event: gr.EventData, request: gr.Request):
        owner = context.visitor(request)
        plot, key = (str(told(event, name) or "") for name in ("plot", "key"))
        if key in _PLAN_KEYS:
            return travelled(owner, _PLAN_KEYS[key])
        if key in selection.LOCK_KEYS:
            return locked(owner, selection.LOCK_KEYS[key])

        if plot == "redundancy-plot":
            return quick(panels, lambda: replanned_as(owner, event))
        if plot == "pareto-plot":
            number = selection.result_number(told(event, "text"))
            return quick(panels, lambda: {panels.compare.first: number or gr.skip()})

        def point(session: Session) -> Selection:
            landscape = session.need_scored().landscape(session.choice.metric)
            if key:
                return selection.moved(plot, key, landscape, session.view.selection)
            clicked = {name: told(event, name) for name in ("row", "column", "x")}
            return selection.pointed(plot, clicked, landscape, session.view.selection)

        return quick(panels, lambda: show(owner, point))

    def locked(owner: str, how: str) -> dict:
        def change(session: Session) -> Choice:
            locks = selection.locked(session.choice.locks, session.view.selection, how, session.spec.group_size)
            return replace(session.choice, locks=locks)

        return quick(panels, lambda: replanned(choose(owner, change)))

    def replanned_as(owner: str, event: gr.EventData) -> dict:
        """The sliders where a cell of the redundancy map stands."""

        def change(session: Session) -> Choice:
            if session.redundancy is None:
                raise NotYet("There is no redundancy map of this model yet; draw it first.")
            cell = told(event, "row"), told(event, "column")
            attention, mlp = figures.redundancy_cell(session.redundancy.points, session.spec, *cell)
            groups = slider_steps.nearest_attention(session.spec, attention)
            return replace(_freed(session.choice), granularity="head_groups", attention=groups, mlp=mlp)

        return panels.repaint_plan(choose(owner, change))

    def replanned(session: Session) -> dict:
        return {**panels.repaint_marks(session), **panels.repaint_followers(session)}

    def on_lock(how: str):
        def act(request: gr.Request):
            return locked(context.visitor(request), how)

        return act

    def on_unlock_all(request: gr.Request):
        def act() -> dict:
            return replanned(choose(context.visitor(request), lambda old: replace(old.choice, locks=Choice().locks)))

        return quick(panels, act)

    def travelled(owner: str, step: Callable[[Session], Session]) -> dict:
        return quick(panels, lambda: panels.repaint_plan(context.sessions.update(owner, step)))

    def on_undo(request: gr.Request):
        return travelled(context.visitor(request), plan_of_choice.undone)

    def on_redo(request: gr.Request):
        return travelled(context.visitor(request), plan_of_choice.redone)

    def on_reset(request: gr.Request):
        def fresh(session: Session) -> Session:
            return plan_of_choice.chosen(session, slider_steps.start(session.spec)) if session.spec else session

        return travelled(context.visitor(request), fresh)

    sliders = [panels.maps.attention, panels.maps.mlp]
    limits = [panels.maps.kind, panels.maps.share]
    counts_of_layer = [panels.layer.groups, panels.layer.kept_channels]
    # One event for both, so that two moves in a row are never answered in the wrong order. Raw values, so that a
    # number typed out of range gets a sentence of ours.
    raw = {"trigger_mode": "always_last", "preprocess": False, "queue": False, **panels.light}
    moved = gr.on([slider.input for slider in sliders], on_sliders, sliders, panels.marked, **raw)
    moved.then(on_moved, None, panels.followers, trigger_mode="always_last", **panels.light)
    limited_by = panels.maps.share.input(on_share, limits, panels.marked, **raw)
    limited_by.then(on_moved, None, panels.followers, trigger_mode="always_last", **panels.light)
    kind_chosen = panels.maps.kind.input(on_kind, panels.maps.kind, panels.marked, **panels.light)
    kind_chosen.then(on_moved, None, panels.followers, **panels.light)
    panels.maps.metric.input(on_metric, panels.maps.metric, panels.all, **panels.light)
    panels.maps.normalisation.input(on_normalisation, panels.maps.normalisation, panels.all, **panels.light)
    allotted = panels.maps.allocation.input(on_allocation, panels.maps.allocation, panels.marked, **panels.light)
    allotted.then(on_moved, None, panels.followers, **panels.light)
    cut_by = panels.maps.granularity.input(on_granularity, panels.maps.granularity, panels.marked, **panels.light)
    cut_by.then(on_moved, None, panels.followers, **panels.light)
    panels.maps.link.select(on_pointed, None, panels.all, queue=False, trigger_mode="multiple", **panels.light)
    panels.maps.undo.click(on_undo, None, panels.all, **panels.light)
    panels.maps.redo.click(on_redo, None, panels.all, **panels.light)
    panels.maps.reset.click(on_reset, None, panels.all, **panels.light)
    panels.layer.select.input(on_layer, panels.layer.select, panels.all, **panels.light)
    typed_into = {"trigger_mode": "always_last", "preprocess": False, **panels.light}
    panels.layer.table.input(on_table, panels.layer.table, panels.all, **typed_into)
    gr.on([slider.input for slider in counts_of_layer], on_layer_counts, counts_of_layer, panels.all, **raw)
    for button, how in (
        (panels.layer.keep, selection.KEEP),
        (panels.layer.remove, selection.REMOVE),
        (panels.layer.free, selection.FREE),
    ):
        button.click(on_lock(how), None, panels.all, **panels.light)
    panels.layer.unlock.click(on_unlock_all, None, panels.all, **panels.light)


def told(event: gr.EventData, name: str):
    """What the browser says of a click under that name; None where it says nothing that can be read."""
    try:
        return getattr(event, name, None)
    except TypeError:  # it sent no object
        return None


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


def _as_counts(session: Session) -> Choice:
    """Begin setting by hand from what the sliders gave."""
    if session.plan is None:
        return session.choice
    kept = plan_of_choice.counts_of(session.plan)
    return replace(_freed(session.choice), keep_head_groups=kept.keep_head_groups, keep_channels=kept.keep_channels)


def _freed(choice: Choice) -> Choice:
    """The choice with neither a limit nor counts by hand, so that the sliders decide."""
    return replace(choice, budget=None, keep_head_groups=None, keep_channels=None)
