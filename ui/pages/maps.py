"""Steps 3 and 4, look and choose: the two score maps and the sliders that mark them."""

import json
from dataclasses import dataclass

import gradio as gr
import numpy as np

import transact as ta
from ui import figures, legal
from ui.session import Session

UNIFORM, BY_HAND = "uniform", "manual"

LINK = """
watch("value", () => {
  for (const [id, marks] of Object.entries(JSON.parse(props.value || "{}"))) {
    const plot = document.querySelector(`#${id} .js-plotly-plot`);
    const drawn = plot && plot.data && plot.data[1];
    if (drawn && String([drawn.x, drawn.y]) !== String([marks.x, marks.y])) {
      window.Plotly.restyle(plot, {x: [marks.x], y: [marks.y]}, [1]);
    }
  }
});
const attach = (id) => {
  const plot = document.querySelector(`#${id} .js-plotly-plot`);
  if (!plot || !plot.on || plot.dataset.watched) return;
  plot.dataset.watched = "yes";
  plot.on("plotly_click", (event) => trigger("select", {layer: event.points[0].y}));
};
setInterval(() => ["heads-plot", "channels-plot"].forEach(attach), 400);
"""
"""Between the maps and Python: clicked rows go in; new marks come out and are drawn without the map, which
keeps a slider's move under 150 ms where sending and drawing 32 × 512 cells again would take several times that."""


@dataclass(frozen=True)
class MapsPanel:
    metric: gr.Dropdown
    normalisation: gr.Radio
    heads: gr.Plot
    channels: gr.Plot
    attention: gr.Slider
    mlp: gr.Slider
    allocation: gr.Radio
    note: gr.HTML
    link: gr.HTML


def build(session: Session) -> MapsPanel:
    gr.HTML(
        "<h2><span>3</span> Look <i>and</i> <span>4</span> choose</h2>"
        "<p>Bright parts carry this text. Hatched parts would be removed. Click a row to see its layer.</p>",
        js_on_load=None,
    )
    with gr.Row():
        metric = gr.Dropdown(
            [(f"{metric.label}: {metric.summary}", name) for name, metric in ta.METRICS.items()],
            value=session.choice.metric,
            label="Measured by (importance metric)",
            elem_id="metric-select",
            filterable=False,
        )
        normalisation = gr.Radio(
            [(label, name) for name, label in figures.NORMALISATIONS.items()],
            value=session.choice.normalisation,
            label="Brightest means highest in",
            min_width=330,
        )
    with gr.Row(elem_id="maps"):
        with gr.Column(scale=4, min_width=330):
            gr.HTML("<h3>Attention heads</h3>", js_on_load=None)
            heads = gr.Plot(heads_plot(session), show_label=False, elem_id="heads-plot")
            attention = gr.Slider(
                **_attention_range(session.spec),
                value=session.choice.attention,
                label="Remove heads (attention sparsity)",
                elem_id="attention-sparsity",
            )
        with gr.Column(scale=5, min_width=330):
            gr.HTML("<h3>MLP channels</h3>", js_on_load=None)
            channels = gr.Plot(channels_plot(session), show_label=False, elem_id="channels-plot")
            mlp = gr.Slider(
                **_mlp_range(session.spec),
                value=session.choice.mlp,
                label="Remove channels (MLP sparsity)",
                elem_id="mlp-sparsity",
            )
    with gr.Row():
        with gr.Column(scale=4, min_width=330):
            note = gr.HTML(note_line(session), elem_id="choice-note", js_on_load=None)
        with gr.Column(scale=5, min_width=330):
            allocation = gr.Radio(
                [("The same in every layer (uniform)", UNIFORM), ("By hand, in the table below (manual)", BY_HAND)],
                value=UNIFORM,
                label="How much each layer keeps (allocation)",
                elem_id="allocation",
            )
    link = gr.HTML("{}", html_template="", js_on_load=LINK, elem_id="map-link")
    return MapsPanel(metric, normalisation, heads, channels, attention, mlp, allocation, note, link)


def paint(panel: MapsPanel, session: Session) -> dict:
    """Everything, for a new model: the sliders take its range."""
    choice = session.choice
    return {
        **paint_maps(panel, session),
        panel.metric: choice.metric,
        panel.attention: gr.update(**_attention_range(session.spec), value=choice.attention),
        panel.mlp: gr.update(**_mlp_range(session.spec), value=choice.mlp),
    }


def paint_maps(panel: MapsPanel, session: Session) -> dict:
    """The maps drawn anew: other scores, another scale or another row."""
    return {
        panel.heads: heads_plot(session),
        panel.channels: channels_plot(session),
        panel.note: note_line(session),
        panel.allocation: BY_HAND if session.choice.by_hand else UNIFORM,
    }


def paint_marks(panel: MapsPanel, session: Session) -> dict:
    """What changes when a slider moves: the marks, and what they come to."""
    return {
        panel.link: marks(session),
        panel.note: note_line(session),
        panel.allocation: BY_HAND if session.choice.by_hand else UNIFORM,
    }


def marks(session: Session) -> str:
    """The removed units of both maps as JSON outlines by plot id."""
    if session.scored is None:
        return "{}"
    landscape = session.scored.landscapes[session.choice.metric]
    return json.dumps(
        {
            "heads-plot": _outlines(figures.head_marks(landscape, session.plan)),
            "channels-plot": _outlines(figures.channel_marks(landscape, session.plan)),
        }
    )


def heads_plot(session: Session):
    return _plot(session, figures.heads_figure)


def channels_plot(session: Session):
    return _plot(session, figures.channels_figure)


def note_line(session: Session) -> str:
    """What the sliders come to in whole units, and why they move in steps."""
    if session.spec is None or session.plan is None:
        return ""
    before, after = session.plan.dense_spec, session.plan.spec
    groups, channels = before.layers[0].num_key_value_heads, before.layers[0].intermediate_size
    kept_groups = _span([layer.num_key_value_heads for layer in after.layers])
    kept_channels = _span([layer.intermediate_size for layer in after.layers])
    why = (
        f"{before.group_size} heads share a key/value head and go together, so attention moves in steps of 1/{groups}."
        if before.group_size > 1
        else f"Heads go whole, so attention moves in steps of 1 of {groups}."
    )
    return (
        f'<p class="note-line">Each layer keeps <b>{kept_groups} of {groups}</b> head groups and '
        f"<b>{kept_channels} of {channels:,}</b> channels. {why}</p>"
    )


def _plot(session: Session, draw):
    if session.scored is None:
        return figures.empty_figure(figures.NOT_SCORED)
    choice = session.choice
    return draw(
        session.scored.landscapes[choice.metric],
        session.plan,
        layer=choice.layer,
        normalisation=choice.normalisation,
    )


def _outlines(outlines: figures.Outlines) -> dict[str, list]:
    """NaN, the gap between rectangles, is null in JSON."""
    x, y = (np.round(values, 4).tolist() for values in outlines)
    return {"x": [None if value != value else value for value in x], "y": [None if v != v else v for v in y]}


def _span(counts: list[int]) -> str:
    return f"{counts[0]:,}" if len(set(counts)) == 1 else f"{min(counts):,} to {max(counts):,}"


def _attention_range(spec: ta.ModelSpec | None) -> dict:
    if spec is None:
        return {"minimum": 0, "maximum": 1, "interactive": False, "info": "Load a model first"}
    groups = spec.layers[0].num_key_value_heads
    if groups == 1:
        return {"minimum": 0, "maximum": 1, "interactive": False, "info": "The only head group has to stay"}
    step = legal.attention_step(spec)
    return {
        "minimum": 0,
        "maximum": round(step * (groups - 1), 6),
        "step": step,
        "interactive": True,
        "info": f"Share of head groups removed, in steps of 1 of {groups}",
    }


def _mlp_range(spec: ta.ModelSpec | None) -> dict:
    return {
        "minimum": 0,
        "maximum": 0.99,
        "step": legal.MLP_STEP,
        "interactive": True,
        "info": "Share of channels removed in every layer",
    }
