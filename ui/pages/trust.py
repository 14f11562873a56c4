"""How far the choice can be trusted: do the metrics agree, and would more text choose otherwise?"""

from dataclasses import dataclass

import gradio as gr

import transact as ta
from transact.wording import counted
from ui import figures
from ui.format import numbers
from ui.state.session import Session

_EMPTY = "Press the button above: what is kept is chosen again from parts of the text"


@dataclass(frozen=True)
class TrustPanel:
    agreement: gr.Plot
    check: gr.Button
    summary: gr.HTML
    stability: gr.Plot


def build(session: Session) -> TrustPanel:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            gr.HTML(
                "<h3>Do the metrics agree?</h3><p>Rank correlation of every pair, mean over the layers.</p>",
                js_on_load=None,
            )
            agreement = gr.Plot(_agreement(session), show_label=False, elem_id="agreement-plot")
        with gr.Column(scale=1, min_width=320):
            gr.HTML(
                "<h3>Is the text long enough?</h3><p>The recorded sequences are resampled; no text is read again.</p>",
                js_on_load=None,
            )
            check = gr.Button("Check stability", elem_id="stability-button", size="sm")
            stability = gr.Plot(_stability(session), show_label=False, elem_id="stability-plot")
            summary = gr.HTML(summary_line(session), elem_id="stability-summary", js_on_load=None)
    return TrustPanel(agreement, check, summary, stability)


def paint(panel: TrustPanel, session: Session) -> dict:
    return {
        panel.agreement: _agreement(session),
        panel.stability: _stability(session),
        panel.summary: summary_line(session),
    }


PAINTS = {"all": paint, "plan": paint}


def summary_line(session: Session) -> str:
    """Whether the kept set has settled, in one sentence."""
    stability = _current(session)
    if stability is None:
        return ""
    return (
        f'<p class="note-line">Drawn anew from all {counted(stability.sizes[-1], "sequence")}, '
        f"<b>{numbers.percent(stability.head_group_overlaps[-1].mean)}</b> of the kept head groups and "
        f"<b>{numbers.percent(stability.channel_overlaps[-1].mean)}</b> of the kept channels stay the same on average. "
        "Where this is far below 100 %, score on more sequences.</p>"
    )


def _agreement(session: Session):
    if session.scored is None:
        return figures.empty_figure(figures.NOT_SCORED, height=260)
    return figures.agreement_figure(ta.agreement(session.scored.scores))


def _current(session: Session) -> ta.Stability | None:
    """What the last check came to, while the scores and the metric that it was made for are in view."""
    last = session.steadiness
    if last is None or last.scored is not session.scored or last.metric != session.choice.metric:
        return None
    return last.value


def _stability(session: Session):
    stability = _current(session)
    return figures.empty_figure(_EMPTY, height=220) if stability is None else figures.stability_figure(stability)
