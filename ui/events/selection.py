"""Steps 3 and 4, continued: pointing in the figures, the layer in view, and locks."""

from collections.abc import Callable
from dataclasses import replace

import gradio as gr

from ui import figures
from ui.context import AppContext
from ui.errors import NotYet
from ui.events.panels import Panels
from ui.events.plan_controls import by_sliders, choose, replanned, step_to
from ui.events.runner import bound, quick, say
from ui.format import numbers
from ui.server.limits import whole
from ui.state import plan_of_choice, selection, slider_steps
from ui.state.session import Choice, Session
from ui.state.view import Selection

_PLAN_KEYS = {"undo": plan_of_choice.undone, "redo": plan_of_choice.redone}


def connect(context: AppContext, panels: Panels) -> None:
    """Wire clicks and keys in the figures, the layer in view, and the locks of the selected unit."""
    own = panels.layer
    pointed = bound(on_pointed, context, panels)
    panels.maps.link.select(pointed, None, panels.all, queue=False, trigger_mode="multiple", **panels.light)
    own.select.input(bound(on_layer, context, panels), own.select, panels.all, **panels.light)
    for button, handler in (
        (own.keep, on_keep),
        (own.remove, on_remove),
        (own.free, on_free),
        (own.unlock, on_unlock_all),
    ):
        button.click(bound(handler, context, panels), None, panels.all, **panels.light)


def on_pointed(context: AppContext, panels: Panels, event: gr.EventData, request: gr.Request) -> dict:
    owner = context.visitor(request)
    plot, key = (str(value_of(event, name) or "") for name in ("plot", "key"))
    if key in _PLAN_KEYS:
        return step_to(context, panels, owner, _PLAN_KEYS[key])
    if key in selection.LOCK_KEYS:
        return _locked(context, panels, owner, selection.LOCK_KEYS[key])
    if plot == "redundancy-plot":
        return quick(panels, lambda: _set_to_cell(context, panels, owner, event))
    if plot == "pareto-plot":
        number = selection.result_number(value_of(event, "text"))
        return quick(panels, lambda: {panels.compare.first: number or gr.skip()})

    def point(session: Session) -> Selection:
        landscape = session.need_scored().landscape(session.choice.metric)
        if key:
            return selection.moved(plot, key, landscape, session.view.selection)
        clicked = {name: value_of(event, name) for name in ("row", "column", "x")}
        return selection.pointed(plot, clicked, landscape, session.view.selection)

    return quick(panels, lambda: _show(context, panels, owner, point))


def on_layer(context: AppContext, panels: Panels, index, request: gr.Request) -> dict:
    def point(session: Session) -> Selection:
        layers = 1 if session.spec is None else session.spec.num_hidden_layers
        now, chosen = session.view.selection, whole("The layer in view", index or 0, 0, layers - 1)
        return now if now.layer == chosen else Selection(chosen)

    return quick(panels, lambda: _show(context, panels, context.visitor(request), point))


def on_keep(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return _locked(context, panels, context.visitor(request), selection.KEEP)


def on_remove(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return _locked(context, panels, context.visitor(request), selection.REMOVE)


def on_free(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    return _locked(context, panels, context.visitor(request), selection.FREE)


def on_unlock_all(context: AppContext, panels: Panels, request: gr.Request) -> dict:
    def act() -> dict:
        session = choose(context, context.visitor(request), lambda old: replace(old.choice, locks=Choice().locks))
        return replanned(panels, session)

    return quick(panels, act)


def value_of(event: gr.EventData, name: str):
    """A value that the browser sent with a click; None where there is none that can be read."""
    try:
        return getattr(event, name, None)
    except TypeError:  # it sent no object
        return None


def _locked(context: AppContext, panels: Panels, owner: str, how: str) -> dict:
    """The selected units kept, removed or left to the score, and the plan that follows.

    Where more is locked to go than a slider removes, the slider moves, and that is said.
    """

    def change(session: Session) -> Choice:
        locks = selection.locked(session.choice.locks, session.view.selection, how, session.spec.group_size)
        choice = replace(session.choice, locks=locks)
        return slider_steps.with_room(session.spec, choice) if how == selection.REMOVE else choice

    def act() -> dict:
        before = context.sessions.get(owner).choice
        session = choose(context, owner, change)
        painted = {**replanned(panels, session), **panels.repaint(session, "controls")}
        return {**painted, **say(panels, _raised(before, session.choice))}

    return quick(panels, act)


def _raised(before: Choice, after: Choice) -> str:
    """Which slider had to move; empty where none had to."""
    moved = [
        f"{name} from {numbers.percent(old)} to {numbers.percent(new)}"
        for name, old, new in (("heads", before.attention, after.attention), ("channels", before.mlp, after.mlp))
        if old != new
    ]
    if not moved:
        return ""
    return f"To remove it the slider moved: {' and '.join(moved)}, which every layer gives up. Undo takes both back."


def _set_to_cell(context: AppContext, panels: Panels, owner: str, event: gr.EventData) -> dict:
    """The sliders where a cell of the redundancy map stands."""

    def change(session: Session) -> Choice:
        if session.redundancy is None:
            raise NotYet("There is no redundancy map of this model yet; draw it first.")
        cell = value_of(event, "row"), value_of(event, "column")
        attention, mlp = figures.redundancy_cell(session.redundancy.points, session.spec, *cell)
        groups = slider_steps.nearest_attention(session.spec, attention)
        return replace(by_sliders(session.choice), granularity="head_groups", attention=groups, mlp=mlp)

    return panels.repaint(choose(context, owner, change), "plan")


def _show(context: AppContext, panels: Panels, owner: str, point: Callable[[Session], Selection]) -> dict:
    """Another unit in view."""
    session = context.sessions.update(owner, lambda old: replace(old, view=replace(old.view, selection=point(old))))
    return {**panels.repaint(session, "selection"), panels.layer.select: session.view.selection.layer}
