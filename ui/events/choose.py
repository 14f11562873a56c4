"""Steps 3 and 4: everything that re-plans or re-draws and needs no model."""

from collections.abc import Callable
from dataclasses import replace

import gradio as gr

from ui import legal, workbench
from ui.errors import WrongInput
from ui.events.desk import LIGHT, Desk, Panels, explained, quick, say, visitor
from ui.pages import layer, maps
from ui.session import Choice, Session


def connect(desk: Desk, panels: Panels) -> None:
    """Wire metric, scale, sliders, allocation, layer table and clicks in the maps."""

    def choose(owner: str, change: Callable[[Session], Choice]) -> Session:
        """Plan anew with the changed choice; on wrong input the session stays as it was."""
        return desk.sessions.update(
            owner, lambda old: workbench.planned(replace(old, choice=change(old))) if old.spec else old
        )

    def on_metric(metric, request: gr.Request):
        def act() -> dict:
            session = choose(visitor(request), lambda old: replace(old.choice, metric=metric))
            return {
                **panels.repaint_marks(session),
                **panels.repaint_followers(session),
                **maps.paint_maps(panels.maps, session),
            }

        return quick(panels, act)

    def on_normalisation(normalisation, request: gr.Request):
        def act() -> dict:
            session = choose(visitor(request), lambda old: replace(old.choice, normalisation=normalisation))
            return {panels.maps.heads: maps.heads_plot(session), panels.maps.channels: maps.channels_plot(session)}

        return quick(panels, act)

    def on_sliders(attention, mlp, request: gr.Request):
        owner = visitor(request)
        session = desk.sessions.get(owner)
        choice = session.choice
        if session.spec is None or (attention, mlp) == (choice.attention, choice.mlp):
            return {panels.maps.note: maps.note_line(session)}
        try:
            legal_attention = legal.nearest_attention(session.spec, checked(attention, "attention"))
            legal_mlp = checked(mlp, "MLP")
        except WrongInput as error:
            return {
                **explained(panels, error),
                panels.maps.attention: choice.attention,
                panels.maps.mlp: choice.mlp,
            }

        def act() -> dict:
            changed = choose(
                owner,
                lambda old: replace(
                    old.choice, attention=legal_attention, mlp=legal_mlp, keep_head_groups=None, keep_channels=None
                ),
            )
            if attention == legal_attention:
                return panels.repaint_marks(changed)
            sentence = (
                f"{attention:g} of the head groups is no whole number of them; the nearest is {legal_attention:g}."
            )
            return {
                **panels.repaint_marks(changed),
                panels.maps.attention: legal_attention,
                **say(panels, sentence),
            }

        return quick(panels, act)

    def on_allocation(allocation, request: gr.Request):
        def act() -> dict:
            by_hand = allocation == maps.BY_HAND
            session = choose(visitor(request), lambda old: _as_counts(old) if by_hand else _as_sliders(old))
            return panels.repaint_marks(session)

        return quick(panels, act)

    def on_moved(request: gr.Request):
        return panels.repaint_followers(desk.sessions.get(visitor(request)))

    def on_table(rows, request: gr.Request):
        owner = visitor(request)
        try:
            groups, channels = counts(rows)
            session = choose(owner, lambda old: replace(old.choice, keep_head_groups=groups, keep_channels=channels))
        except Exception as error:
            last_good = layer.paint_choice(panels.layer, desk.sessions.get(owner))
            return {**explained(panels, error), panels.layer.table: last_good[panels.layer.table]}
        followers = {**panels.repaint_followers(session), panels.layer.table: gr.skip()}
        return {**panels.repaint_marks(session), **followers, panels.status.message: ""}

    def show_layer(index: int, owner: str) -> dict:
        session = desk.sessions.update(owner, lambda old: replace(old, choice=replace(old.choice, layer=index)))
        return {
            panels.maps.heads: maps.heads_plot(session),
            panels.maps.channels: maps.channels_plot(session),
            **layer.paint_choice(panels.layer, session),
            panels.layer.select: index,
        }

    def on_layer(index, request: gr.Request):
        return quick(panels, lambda: show_layer(int(index or 0), visitor(request)))

    def on_click(event: gr.EventData, request: gr.Request):
        return quick(panels, lambda: show_layer(round(event.layer), visitor(request)))

    sliders = [panels.maps.attention, panels.maps.mlp]
    # One event for both, so that two moves in a row are never answered in the wrong order. Raw values, so that a
    # number typed out of range gets a sentence of ours.
    moved = gr.on(
        [slider.change for slider in sliders],
        on_sliders,
        sliders,
        panels.marked,
        trigger_mode="always_last",
        preprocess=False,
        queue=False,
        **LIGHT,
    )
    moved.then(on_moved, None, panels.followers, trigger_mode="always_last", **LIGHT)
    panels.maps.metric.input(on_metric, panels.maps.metric, panels.all, **LIGHT)
    panels.maps.normalisation.input(on_normalisation, panels.maps.normalisation, panels.all, **LIGHT)
    allotted = panels.maps.allocation.input(on_allocation, panels.maps.allocation, panels.marked, **LIGHT)
    allotted.then(on_moved, None, panels.followers, **LIGHT)
    panels.maps.link.select(on_click, None, panels.all, **LIGHT)
    panels.layer.select.input(on_layer, panels.layer.select, panels.all, **LIGHT)
    panels.layer.table.input(on_table, panels.layer.table, panels.all, trigger_mode="always_last", **LIGHT)


def checked(value, name: str) -> float:
    """A sparsity as a slider or an endpoint gave it. Raises `WrongInput` outside [0, 1)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise WrongInput(f"The {name} sparsity is {value}; it is the share removed, at least 0 and below 1.")
    return float(value)


def counts(rows: list[list]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Head groups and channels to keep, a number for each layer, from the edited table."""
    columns = []
    for column, name in ((1, "head groups"), (3, "channels")):
        kept = []
        for index, row in enumerate(rows):
            try:
                kept.append(int(str(row[column]).strip()))
            except ValueError:
                raise WrongInput(
                    f"Layer {index} is to keep “{row[column]}” {name}; give a whole number, at least 1."
                ) from None
        columns.append(tuple(kept))
    return columns[0], columns[1]


def _as_counts(session: Session) -> Choice:
    """Begin setting by hand from what the sliders gave."""
    if session.plan is None:
        return session.choice
    layers = session.plan.spec.layers
    return replace(
        session.choice,
        keep_head_groups=tuple(shape.num_key_value_heads for shape in layers),
        keep_channels=tuple(shape.intermediate_size for shape in layers),
    )


def _as_sliders(session: Session) -> Choice:
    return replace(session.choice, keep_head_groups=None, keep_channels=None)
