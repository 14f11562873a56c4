"""Step 6, several at once: settings that wait to be cut and measured, one after the other."""

from dataclasses import dataclass
from html import escape

import gradio as gr

import transact as ta
from ui.format import numbers
from ui.state.session import Queued, Session

_EMPTY = '<p class="estimate">Several settings at once: add each as it stands above, then have all of them cut.</p>'


@dataclass(frozen=True)
class QueuePanel:
    add: gr.Button
    listed: gr.HTML
    start: gr.Button
    clear: gr.Button


def build(session: Session) -> QueuePanel:
    with gr.Row(elem_id="queue"):
        add = gr.Button("Add to queue", elem_id="queue-add", size="sm", min_width=110, scale=0)
        listed = gr.HTML(queue_list(session), elem_id="queue-list", js_on_load=None)
        start = gr.Button(
            title(session), elem_id="queue-start", size="sm", variant="primary", min_width=140, scale=0, visible=False
        )
        clear = gr.Button("Empty", elem_id="queue-clear", size="sm", min_width=64, scale=0, visible=False)
    return QueuePanel(add, listed, start, clear)


def paint(panel: QueuePanel, session: Session) -> dict:
    shown = gr.update(visible=bool(session.queue))
    return {panel.listed: queue_list(session), panel.start: shown, panel.clear: shown}


PAINTS = {"all": paint, "below": paint, "results": paint}


def title(session: Session) -> str:
    """What the button says that works them off."""
    count = len(session.queue)
    return "Cut this one" if count == 1 else f"Cut these {count}"


def queue_list(session: Session) -> str:
    """Each setting in a few words."""
    if not session.queue:
        return _EMPTY
    return f'<ol class="queue">{"".join(f"<li>{escape(words(queued))}</li>" for queued in session.queue)}</ol>'


def words(queued: Queued) -> str:
    """What goes: "20 % of channels, 33 % of heads; best"."""
    before, after = queued.plan.dense_spec, queued.plan.spec
    heads, channels = (
        1 - sum(getattr(layer, name) for layer in after.layers) / sum(getattr(layer, name) for layer in before.layers)
        for name in ("num_attention_heads", "intermediate_size")
    )
    repair = ta.REPAIRS[queued.repair]
    searched = ", searched" if queued.search and repair.takes_search else ""
    return f"{numbers.percent(heads)} of heads, {numbers.percent(channels)} of channels; {repair.name}{searched}"
