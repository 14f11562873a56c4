"""One layer close up, and the table in which every layer's counts can be set by hand."""

from dataclasses import dataclass

import gradio as gr

from ui import figures
from ui.session import Session
from ui.tables import LAYER_HEADERS, layer_rows

_EDITABLE = (1, 3)


@dataclass(frozen=True)
class LayerPanel:
    select: gr.Dropdown
    heads: gr.Plot
    channels: gr.Plot
    table: gr.Dataframe


def build(session: Session) -> LayerPanel:
    with gr.Column(elem_id="layer-detail"):
        select = gr.Dropdown(
            _layers(session), value=session.choice.layer, label="Layer in view", elem_id="layer-select"
        )
        heads, channels = _plots(session)
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                heads_plot = gr.Plot(heads, show_label=False, elem_id="layer-heads-plot")
            with gr.Column(scale=5, min_width=320):
                channels_plot = gr.Plot(channels, show_label=False, elem_id="layer-channels-plot")
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
    return LayerPanel(select, heads_plot, channels_plot, table)


def paint(panel: LayerPanel, session: Session) -> dict:
    return {
        **paint_choice(panel, session),
        panel.select: gr.update(choices=_layers(session), value=session.choice.layer),
    }


def paint_choice(panel: LayerPanel, session: Session) -> dict:
    heads, channels = _plots(session)
    return {panel.heads: heads, panel.channels: channels, panel.table: _rows(session)}


def _plots(session: Session):
    if session.scored is None:
        empty = figures.empty_figure(figures.NOT_SCORED, height=160)
        return empty, empty
    landscape = session.scored.landscapes[session.choice.metric]
    layer = session.choice.layer
    return (
        figures.layer_heads_figure(landscape, session.plan, layer=layer),
        figures.layer_channels_figure(landscape, session.plan, layer=layer),
    )


def _layers(session: Session) -> list[tuple[str, int]]:
    count = session.spec.num_hidden_layers if session.spec else 1
    return [(f"Layer {index}", index) for index in range(count)]


def _rows(session: Session) -> list[list[int]]:
    return layer_rows(session.plan) if session.plan else []
