"""What does this unit read? The places in the calibration text where the selected unit is most active."""

from dataclasses import dataclass
from html import escape

import gradio as gr

import transact as ta
from ui.format import numbers
from ui.state.session import Session

_CHOOSE = "Click a head or a channel in any figure: the words where it is most active will stand here."


@dataclass(frozen=True)
class ReadingPanel:
    reads: gr.HTML


def build(session: Session) -> ReadingPanel:
    return ReadingPanel(gr.HTML(reads_list(session), elem_id="reads", js_on_load=None))


def paint(panel: ReadingPanel, session: Session) -> dict:
    return {panel.reads: reads_list(session)}


PAINTS = {"all": paint, "selection": paint, "plan": paint}


def reads_list(session: Session) -> str:
    """The strongest tokens in their context, strongest first, each with its activation as a bar."""
    selection, scored = session.view.selection, session.scored
    unit = {"head": selection.head}
    name = f"head {selection.head}"
    if selection.head is None and selection.channels:
        unit = {"channel": selection.channels[0]}
        name = f"channel {selection.channels[0]}"
    elif selection.head is None:
        return f'<p class="empty">{_CHOOSE}</p>'
    if not session.key.has_weights:
        return '<p class="empty">What a unit reads is not in the gallery: load the weights and score the model.</p>'
    if scored is None or scored.tokenizer is None:
        return '<p class="empty">Score the model first, with a tokenizer that can show what was read.</p>'
    reads = ta.reads(scored.statistics, scored.calibration, scored.tokenizer, layer=selection.layer, **unit)
    strongest = max((abs(read.activation) for read in reads), default=0.0) or 1.0
    rows = "".join(_row(read, abs(read.activation) / strongest) for read in reads)
    return (
        f'<p class="note-line">Layer {selection.layer}, <b>{name}</b> is most active at the marked tokens of '
        f"<b>{escape(scored.text.name)}</b>, once a sequence:</p>"
        f'<ol class="reads">{rows}</ol>'
    )


def _row(read: ta.Reading, share: float) -> str:
    strength = f'<i style="width:{share * 100:.0f}%"></i><b>{numbers.figure(read.activation)}</b>'
    return (
        f'<li><span class="strength">{strength}</span>'
        f"<q>{_visible(read.before)}<mark>{_visible(read.token)}</mark>{_visible(read.after)}</q></li>"
    )


def _visible(text: str) -> str:
    """Line breaks are drawn, since they are tokens as well."""
    return escape(text).replace("\n", "↵ ")
