"""Steps 3 and 4, look and choose: the two score maps and the sliders that mark them."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr
import numpy as np

import transact as ta
from transact.planning.search import METRIC as SEARCH
from ui import figures
from ui.format import numbers
from ui.format.theme import ASSETS
from ui.state import budgets, slider_steps
from ui.state.session import Session

UNITS = {
    "head_groups": ("head group", "head groups", "head groups"),
    "heads": ("head of a group", "the heads of every group", "heads of a group"),
    "head_dims": ("RoPE pair of a head", "every head's RoPE pairs, and of its value channels,", "RoPE pairs of a head"),
}
"""What a granularity counts: one of them, what a share is taken of, several of them."""
_SLIDERS_SET = {
    "uniform": "Share of channels removed in every layer",
    "global": "Share of the channels of all layers together that is removed",
    "flap": "With the heads’ share: how many parameters go; the scores decide of what",
}
"""What the slider of the channels means under each allocation."""
_FINER = {"heads": "Cut query heads", "head_dims": "Cut inside heads"}
"""What the button says that leads to each granularity."""
LINKING = ASSETS / "linking.js"


@dataclass(frozen=True)
class MapsPanel:
    metric: gr.Dropdown
    normalisation: gr.Radio
    heads: gr.Plot
    channels: gr.Plot
    attention: gr.Slider
    mlp: gr.Slider
    note: gr.HTML
    finer: gr.Button
    undo: gr.Button
    redo: gr.Button
    reset: gr.Button
    link: gr.HTML


def build(session: Session) -> MapsPanel:
    with gr.Row(elem_id="maps"):
        with gr.Column(scale=4, min_width=330):
            metric = _metric(session)
            heads, attention = _heads(session)
        with gr.Column(scale=5, min_width=330):
            normalisation = _normalisation(session)
            channels, mlp = _channels(session)
    with gr.Row(elem_id="choice-row"):
        note = gr.HTML(note_line(session), elem_id="choice-note", js_on_load=None)
        finer = gr.Button(**_finer(session), elem_id="finer-button", size="sm", min_width=64, scale=0)
        undo = gr.Button("Undo", elem_id="undo-button", size="sm", min_width=64, scale=0, interactive=False)
        redo = gr.Button("Redo", elem_id="redo-button", size="sm", min_width=64, scale=0, interactive=False)
        reset = gr.Button("Reset", elem_id="reset-button", size="sm", min_width=64, scale=0)
    # not as `marks` ever is: gradio tells no change back to the value that a component was built with
    link = gr.HTML("", html_template="", js_on_load=LINKING.read_text(encoding="utf-8"), elem_id="map-link")
    return MapsPanel(metric, normalisation, heads, channels, attention, mlp, note, finer, undo, redo, reset, link)


def paint(panel: MapsPanel, session: Session) -> dict:
    """Everything, for a new model or other scores."""
    return {
        **paint_maps(panel, session),
        **paint_controls(panel, session),
        **paint_marks(panel, session),
    }


def paint_maps(panel: MapsPanel, session: Session) -> dict:
    """The maps drawn anew: other scores or another scale."""
    return {panel.heads: heads_plot(session), panel.channels: channels_plot(session)}


def paint_controls(panel: MapsPanel, session: Session) -> dict:
    """The controls where the choice has them; sliders take the model's range."""
    choice = session.choice
    return {
        panel.metric: gr.update(choices=_metrics(session), value=choice.metric),
        panel.attention: gr.update(**_attention_range(session), value=choice.attention),
        panel.mlp: gr.update(**_mlp_range(session), value=choice.mlp),
        panel.finer: gr.update(**_finer(session)),
    }


def paint_marks(panel: MapsPanel, session: Session) -> dict:
    """What changes when a slider moves: the marks, and what they come to."""
    return {
        panel.link: marks(session),
        panel.note: note_line(session),
        panel.undo: gr.update(interactive=bool(session.timeline.past)),
        panel.redo: gr.update(interactive=bool(session.timeline.future)),
    }


def paint_selection(panel: MapsPanel, session: Session) -> dict:
    """What follows another unit in view."""
    return {panel.link: marks(session)}


PAINTS = {"all": paint, "controls": paint_controls, "marks": paint_marks, "selection": paint_selection, "plan": paint}


def _metric(session: Session) -> gr.Dropdown:
    """By what the maps are drawn and units are chosen."""
    return gr.Dropdown(
        _metrics(session),
        value=session.choice.metric,
        label="Measured by",
        elem_id="metric-select",
        elem_classes="inline",
        filterable=False,
    )


def _normalisation(session: Session) -> gr.Radio:
    return gr.Radio(
        [(label, name) for name, label in figures.NORMALISATIONS.items()],
        value=session.view.normalisation,
        label="Brightest in",
        elem_id="normalisation",
        elem_classes="inline",
    )


def _heads(session: Session) -> tuple[gr.Plot, gr.Slider]:
    """The map of heads, and how many of them go."""
    heads = gr.Plot(heads_plot(session), show_label=False, elem_id="heads-plot", elem_classes=["linked", "keyed"])
    attention = gr.Slider(
        **_attention_range(session),
        value=session.choice.attention,
        label="Remove heads (attention sparsity)",
        elem_id="attention-sparsity",
        elem_classes="mapped",
        buttons=[],
    )
    return heads, attention


def _channels(session: Session) -> tuple[gr.Plot, gr.Slider]:
    """The map of channels, and how many of them go."""
    plot = channels_plot(session)
    channels = gr.Plot(plot, show_label=False, elem_id="channels-plot", elem_classes=["linked", "keyed"])
    mlp = gr.Slider(
        **_mlp_range(session),
        value=session.choice.mlp,
        label="Remove channels (MLP sparsity)",
        elem_id="mlp-sparsity",
        elem_classes="mapped",
        buttons=[],
    )
    return channels, mlp


def _metrics(session: Session) -> list[tuple[str, str]]:
    """The metrics that the scores in view have; before there are any, those that a first run will give."""
    scored = session.scored
    return [
        (f"{metric.label}: {metric.summary}", name)
        for name, metric in ta.METRICS.items()
        if (name in scored.scores if scored else not metric.needs_gradients)
    ]


def marks(session: Session) -> str:
    """What lies over both maps as JSON, the points of each trace by plot id."""
    if session.scored is None:
        return "{}"
    return json.dumps(
        {
            "heads-plot": _points(_overlay(session, figures.heads_overlay)),
            "channels-plot": _points(_overlay(session, figures.channels_overlay)),
        }
    )


def heads_plot(session: Session):
    return _plot(session, figures.heads_overlay, figures.heads_figure)


def channels_plot(session: Session):
    return _plot(session, figures.channels_overlay, figures.channels_figure)


def note_line(session: Session) -> str:
    """What the sliders come to in whole units, and why they move in steps."""
    if session.spec is None or session.plan is None:
        return ""
    before, after = session.plan.dense_spec, session.plan.spec
    groups, channels = before.layers[0].num_key_value_heads, before.layers[0].intermediate_size
    kept_groups = _span([layer.num_key_value_heads for layer in after.layers])
    kept_channels = _span([layer.intermediate_size for layer in after.layers])
    limit = ""
    if session.choice.budget is not None:
        kind = budgets.BUDGETS[session.choice.budget.kind]
        share = numbers.percent(kind.amount(after) / kind.amount(before), 1)
        limit = f"That is {kind.show(kind.amount(after))} ({share}), the most that fits the limit. "
    inside = ""
    if session.plan.cuts_inside_groups:
        inside = f", of each <b>{after.group_size} of {before.group_size}</b> query heads,"
    if session.plan.cuts_inside_heads:
        inside = (
            f", of each head <b>{after.query_key_dim} of {before.query_key_dim}</b> dimensions of queries and keys and "
            f"<b>{after.value_dim} of {before.value_dim}</b> of values (hatched: the share that goes),"
        )
    few = _few(session)
    steps = "" if few else f": attention moves in steps of 1 of {groups}"  # said with the few
    why = (
        "No stock class has such heads: kept compact, only this project loads them; padded with zeros, every program "
        "does, and what attention saves is lost."
        if session.choice.granularity == "head_dims"
        else "The KV cache holds the key/value heads, so that heads which go inside a group leave it as it is."
        if session.choice.granularity == "heads"
        else f"All {before.num_attention_heads} heads share one key/value head, so no group can go."
        if groups == 1
        else f"{before.group_size} heads share a key/value head and go together{steps}."
        if before.group_size > 1
        else f"Heads go whole, so attention moves in steps of 1 of {groups}."
    )
    if session.plan.allocation == "flap":
        why += " The scores decide how many of the parameters that go are heads’ and how many channels’."
    searched = "Marked is what the search chose at the last cut. " if session.plan.metric == SEARCH else ""
    return (
        f'<p class="note-line">{searched}Each layer keeps <b>{kept_groups} of {groups}</b> head groups{inside} and '
        f"<b>{kept_channels} of {channels:,}</b> channels. {limit}{few}{why}</p>"
    )


def _overlay(session: Session, overlay: Callable[..., figures.Overlay]) -> figures.Overlay:
    landscape = session.scored.landscape(session.choice.metric)
    return overlay(landscape, session.plan, session.choice.locks, session.view.selection)


def _plot(session: Session, overlay: Callable[..., figures.Overlay], draw):
    if session.scored is None:
        return figures.empty_figure(figures.NOT_SCORED, height=80)
    landscape = session.scored.landscape(session.choice.metric)
    return draw(landscape, _overlay(session, overlay), normalisation=session.view.normalisation)


def _points(overlay: figures.Overlay) -> list[list[list]]:
    """NaN, the gap between rectangles, is null in JSON."""
    rounded = (np.round(values, 4).tolist() for points in overlay.points for values in points)
    flat = [[None if value != value else value for value in values] for values in rounded]
    return [flat[index : index + 2] for index in range(0, len(flat), 2)]


def _span(counts: list[int]) -> str:
    return f"{counts[0]:,}" if len(set(counts)) == 1 else f"{min(counts):,} to {max(counts):,}"


def _finer(session: Session) -> dict:
    """The offer to cut attention in smaller steps, where there are few key/value heads and the family allows it."""
    spec, choice = session.spec, session.choice
    finer = spec and slider_steps.gentler(spec, choice.granularity, streamed=session.streamed)
    return {"value": _FINER.get(finer, ""), "visible": finer is not None}


def _few(session: Session) -> str:
    """How dear a step of the attention slider is where there are few units; nothing where there are many."""
    spec, granularity = session.spec, session.choice.granularity
    units = slider_steps.attention_units(spec, granularity)
    if granularity != "head_groups" or not 1 < units < slider_steps.MANY_GROUPS:
        return ""
    return f"Only {units} key/value heads: a step takes {numbers.percent(1 / units)} of attention. "


def _attention_range(session: Session) -> dict:
    spec = session.spec
    if spec is None:
        return {"minimum": 0, "maximum": 1, "interactive": False, "info": "Load a model first"}
    granularity = session.choice.granularity
    units, what = slider_steps.attention_units(spec, granularity), UNITS[granularity]
    if units == 1:
        return {"minimum": 0, "maximum": 1, "interactive": False, "info": f"The only {what[0]} has to stay"}
    step = slider_steps.attention_step(units)
    return {
        "minimum": 0,
        "maximum": round(step * (units - 1), 6),
        "step": step,
        "interactive": True,
        "info": f"Share of {what[1]} removed, in steps of 1 of {units}",
    }


def _mlp_range(session: Session) -> dict:
    return {
        "minimum": 0,
        "maximum": 0.99,
        "step": slider_steps.MLP_STEP,
        "interactive": True,
        "info": _SLIDERS_SET[session.choice.allocation],
    }
