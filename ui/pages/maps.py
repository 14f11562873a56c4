"""Steps 3 and 4, look and choose: the two score maps and the sliders that mark them."""

from dataclasses import dataclass

import gradio as gr

import transact as ta
from ui import figures, legal
from ui.session import Session

UNIFORM, BY_HAND = "uniform", "manual"

WATCH_CLICKS = """
const attach = (id) => {
  const plot = document.querySelector(`#${id} .js-plotly-plot`);
  if (!plot || !plot.on || plot.dataset.watched) return;
  plot.dataset.watched = "yes";
  plot.on("plotly_click", (event) => trigger("select", {layer: event.points[0].y}));
};
setInterval(() => ["heads-plot", "channels-plot"].forEach(attach), 400);
"""


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
    clicks: gr.HTML


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
        note = gr.HTML(note_line(session), elem_id="choice-note", js_on_load=None, min_width=330)
        allocation = gr.Radio(
            [("The same in every layer (uniform)", UNIFORM), ("By hand, in the table below (manual)", BY_HAND)],
            value=UNIFORM,
            label="How much each layer keeps (allocation)",
            elem_id="allocation",
            min_width=330,
        )
    clicks = gr.HTML("", js_on_load=WATCH_CLICKS, elem_id="plot-clicks")
    return MapsPanel(metric, normalisation, heads, channels, attention, mlp, allocation, note, clicks)


def paint(panel: MapsPanel, session: Session) -> dict:
    """Everything, for a new model: the sliders take its range."""
    choice = session.choice
    return {
        **paint_choice(panel, session),
        panel.metric: choice.metric,
        panel.attention: gr.update(**_attention_range(session.spec), value=choice.attention),
        panel.mlp: gr.update(**_mlp_range(session.spec), value=choice.mlp),
    }


def paint_choice(panel: MapsPanel, session: Session) -> dict:
    """What changes when a control moves: the marks and the note."""
    return {
        panel.heads: heads_plot(session),
        panel.channels: channels_plot(session),
        panel.note: note_line(session),
        panel.allocation: BY_HAND if session.choice.by_hand else UNIFORM,
    }


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
