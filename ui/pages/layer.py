"""One layer close up: the selected unit with its locks, four views of the layer, and its counts by hand."""

from dataclasses import dataclass
from html import escape

import gradio as gr
import numpy as np

import transact as ta
from ui import figures
from ui.errors import WrongInput
from ui.format import numbers
from ui.state import selection
from ui.state.session import Session
from ui.views.result_table import LAYER_HEADERS, layer_rows

_EDITABLE = (1, 3)
_LOCKED = {selection.KEEP: "locked to stay", selection.REMOVE: "locked to go", selection.FREE: "left to the score"}


@dataclass(frozen=True)
class LayerPanel:
    select: gr.Dropdown
    unit: gr.HTML
    keep: gr.Button
    remove: gr.Button
    free: gr.Button
    unlock: gr.Button
    groups: gr.Slider
    kept_channels: gr.Slider
    heads: gr.Plot
    channels: gr.Plot
    inside: gr.Plot
    distribution: gr.Plot
    concentration: gr.HTML
    table: gr.Dataframe


def build(session: Session) -> LayerPanel:
    with gr.Column(elem_id="layer-detail"):
        with gr.Row(elem_classes="bottom"):
            select = gr.Dropdown(
                _layers(session), value=session.view.selection.layer, label="Layer in view", elem_id="layer-select",
                filterable=False, min_width=120, scale=1,
            )  # fmt: skip
            with gr.Column(scale=4, min_width=300):
                unit = gr.HTML(unit_line(session), elem_id="unit", js_on_load=None)
                with gr.Row(elem_id="locks"):
                    keep = _button("Keep it", "lock-keep")
                    remove = _button("Remove it", "lock-remove")
                    free = _button("Leave it to the score", "lock-free")
                    unlock = _button("Free all locks", "unlock-all")
        with gr.Row():
            groups = gr.Slider(
                **_groups_range(session), label="Head groups kept in this layer", elem_id="layer-groups", buttons=[],
            )  # fmt: skip
            kept_channels = gr.Slider(
                **_channels_range(session), label="Channels kept in this layer", elem_id="layer-channels", buttons=[],
            )  # fmt: skip
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                heads = _plot("layer-heads-plot")
            with gr.Column(scale=5, min_width=320):
                channels = _plot("layer-channels-plot")
        concentration = gr.HTML(concentration_line(session), elem_id="concentration", js_on_load=None)
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                inside = _plot("head-channels-plot")
            with gr.Column(scale=5, min_width=320):
                distribution = _plot("distribution-plot")
    with gr.Accordion("Every layer by number: type how much each one keeps", open=False):
        table = gr.Dataframe(
            _rows(session),
            headers=list(LAYER_HEADERS),
            datatype="number",
            type="array",
            interactive=True,
            static_columns=[column for column in range(len(LAYER_HEADERS)) if column not in _EDITABLE],
            show_label=False,
            max_height=360,
            buttons=[],
            elem_id="layer-table",
        )
    return LayerPanel(
        select, unit, keep, remove, free, unlock, groups, kept_channels, heads, channels, inside, distribution,
        concentration, table,
    )  # fmt: skip


def typed_rows(table) -> list[list]:
    """The cells of the table as a browser sends it. Raises `WrongInput` for anything of another form."""
    rows = table.get("data") if isinstance(table, dict) else None
    if isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(LAYER_HEADERS) for row in rows):
        return rows
    raise WrongInput(f"The table came without rows of {len(LAYER_HEADERS)} cells; reload the page and type again.")


def paint(panel: LayerPanel, session: Session) -> dict:
    """Everything, also after a new model."""
    return {
        **paint_choice(panel, session),
        panel.groups: gr.update(**_groups_range(session)),
        panel.kept_channels: gr.update(**_channels_range(session)),
        panel.select: gr.update(choices=_layers(session), value=session.view.selection.layer),
    }


def paint_choice(panel: LayerPanel, session: Session) -> dict:
    """What follows a new plan or selection."""
    heads, channels, inside, distribution = _plots(session)
    # values alone: with the range beside it, the browser reports the maximum as if it had been chosen
    counts = {}
    if session.plan is not None:
        shape = _shape(session)
        counts = {panel.groups: shape.num_key_value_heads, panel.kept_channels: shape.intermediate_size}
    return {
        panel.unit: unit_line(session),
        **counts,
        panel.heads: heads,
        panel.channels: channels,
        panel.inside: inside,
        panel.distribution: distribution,
        panel.concentration: concentration_line(session),
        panel.table: _rows(session),
    }


PAINTS = {
    "all": paint, "followers": paint_choice, "selection": paint_choice, "plan": paint_choice, "below": paint_choice,
}  # fmt: skip


def unit_line(session: Session) -> str:
    """The selected unit in words, whether it stays, and how it is locked."""
    if session.scored is None or session.plan is None:
        return '<p class="unit">Nothing to select yet: score the model first.</p>'
    unit, locks = session.view.selection, session.choice.locks
    scores = session.scored.scores[session.choice.metric]
    kept, size = session.plan.layers[unit.layer], session.spec.group_size
    total = selection.count(locks)
    tail = f" · {total:,} unit{'s' if total != 1 else ''} locked in all" if total else ""
    if unit.head is not None:
        group = unit.head // size
        with_it = f", group {group} of {size} heads" if size > 1 else ""
        name = f"head {unit.head}{with_it}"
        score = float(scores.heads[unit.layer][unit.head])
        stays = unit.head in kept.kept_heads
    elif unit.channels:
        best = unit.channels[0]
        others = len(unit.channels) - 1
        name = f"channel {best}" + (f" and {others} more of its bin" if others else "")
        score = float(scores.mlp_channels[unit.layer][best])
        stays = best in kept.kept_channels
    else:
        return (
            f'<p class="unit">Selected: <b>layer {unit.layer}</b>. Click a head or a channel to look into it and '
            f"to lock it{tail}.</p>"
        )
    lock = _LOCKED[selection.lock_of(locks, unit, size)]
    if unit.head is not None and session.choice.granularity == "heads":
        lock = f"its group {lock}"
    return (
        f'<p class="unit">Selected: <b>layer {unit.layer}, {escape(name)}</b>, score {numbers.figure(score)}; it '
        f"<b>{'stays' if stays else 'goes'}</b>, {lock}{tail}.</p>"
    )


def concentration_line(session: Session) -> str:
    """How few channels hold most of the layer's score."""
    if session.scored is None:
        return ""
    layer = session.view.selection.layer
    landscape = session.scored.landscape(session.choice.metric)
    shares = figures.cumulative_shares(landscape.channels[layer][landscape.order[layer]])
    half, most = ((np.searchsorted(shares, share) + 1) / len(shares) for share in (0.5, 0.8))
    return (
        f'<p class="note-line">In layer {layer}, half of the score sits in <b>{numbers.percent(half)}</b> of the '
        f"channels and 80 % of it in <b>{numbers.percent(most)}</b>.</p>"
    )


def _button(label: str, elem_id: str) -> gr.Button:
    return gr.Button(label, elem_id=elem_id, size="sm", min_width=90, scale=0)


def _plot(elem_id: str) -> gr.Plot:
    """Empty until the page has opened: the two maps are drawn first."""
    return gr.Plot(show_label=False, elem_id=elem_id, elem_classes="linked")


def _plots(session: Session):
    if session.scored is None:
        return (figures.empty_figure(figures.NOT_SCORED, height=160),) * 4
    metric, selection = session.choice.metric, session.view.selection
    landscape = session.scored.landscape(metric)
    return (
        figures.layer_heads_figure(landscape, session.plan, selection),
        figures.layer_channels_figure(landscape, session.plan, selection),
        figures.head_channels_figure(session.scored.scores[metric], selection),
        figures.distribution_figure(landscape, session.plan, selection),
    )


def _layers(session: Session) -> list[tuple[str, int]]:
    count = session.spec.num_hidden_layers if session.spec else 1
    return [(f"Layer {index}", index) for index in range(count)]


def _groups_range(session: Session) -> dict:
    return _range(session, lambda shape: shape.num_key_value_heads)


def _channels_range(session: Session) -> dict:
    return _range(session, lambda shape: shape.intermediate_size)


def _range(session: Session, count) -> dict:
    """From one unit to all that the widest layer has; where that is one only, there is nothing to choose."""
    if session.plan is None:
        return {"minimum": 0, "maximum": 1, "value": 1, "step": 1, "interactive": False}
    available = max(count(shape) for shape in session.plan.dense_spec.layers)
    return {
        "minimum": 1 if available > 1 else 0,
        "maximum": available,
        "value": count(_shape(session)),
        "step": 1,
        "interactive": available > 1,
    }


def _shape(session: Session) -> ta.LayerShape:
    """What the plan leaves of the layer in view."""
    return session.plan.spec.layers[session.view.selection.layer]


def _rows(session: Session) -> list[list[int]]:
    return layer_rows(session.plan) if session.plan else []
