"""Live: a sentence continued by the dense and by the masked model, rewritten at every click and slider."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.format import numbers
from ui.state.session import Session
from ui.views.changed_words import changed
from ui.work.live import PLAN, UNIT, Live

DEFAULT_PROMPT = "Once upon a time, there was a little"
_MASKED = {PLAN: "hatched parts off", UNIT: "selected unit off"}
_CHOICES = [("All hatched", PLAN), ("The selected unit alone", UNIT)]


@dataclass(frozen=True)
class LivePanel:
    prompt: gr.Textbox
    masked: gr.Radio
    dense_text: gr.HTML
    masked_text: gr.HTML
    next_words: gr.HTML


def build(session: Session) -> LivePanel:
    with gr.Row(elem_classes="bottom"):
        prompt = gr.Textbox(
            DEFAULT_PROMPT, label="Go on from", max_lines=2, elem_id="live-prompt", elem_classes="inline", scale=3
        )
        masked = gr.Radio(
            _CHOICES,
            value=PLAN,
            label="Switched off",
            elem_id="live-masks",
            elem_classes="inline",
            scale=3,
            min_width=400,
        )
    with gr.Row(elem_id="live"):
        with gr.Column(scale=3, min_width=280):
            dense_text = gr.HTML(_pane("As it is", ""), elem_id="live-dense", js_on_load=None)
        with gr.Column(scale=3, min_width=280):
            masked_text = gr.HTML(_pane("Behind masks", ""), elem_id="live-masked", js_on_load=None)
        with gr.Column(scale=2, min_width=240):
            next_words = gr.HTML("", elem_id="live-next", js_on_load=None)
    return LivePanel(prompt, masked, dense_text, masked_text, next_words)


PAINTS: dict = {}


def paint(panel: LivePanel, live: Live) -> dict:
    """Both texts, the words that changed marked, and the likeliest next words of both."""
    dense = _pane("As it is", _text(live.prompt, escape(live.dense.words)))
    if live.behind_mask is None:
        return {**paint_reason(panel, live.reason), panel.dense_text: dense}
    seconds = f"{numbers.figure(live.seconds)} s" if live.seconds >= 0.05 else "at once"
    words = _text(live.prompt, changed(live.dense.words, live.behind_mask.words))
    return {
        panel.dense_text: dense,
        panel.masked_text: _pane(f"Behind masks <small>{_MASKED[live.masked]}, {seconds}</small>", words),
        panel.next_words: next_words(live),
    }


def paint_waiting(panel: LivePanel) -> dict:
    """What stands there is of before, and is being written anew."""
    return {panel.next_words: '<p class="estimate">Writing anew …</p>'}


def paint_reason(panel: LivePanel, sentence: str) -> dict:
    """Why nothing is written, where the masked text would stand; what stood there before goes."""
    return {
        panel.dense_text: _pane("As it is", ""),
        panel.masked_text: _pane("Behind masks", f'<p class="empty">{escape(sentence)}</p>'),
        panel.next_words: "",
    }


def next_words(live: Live) -> str:
    """The likeliest next words of the dense model, each with both models' probabilities as bars."""
    behind = dict(live.behind_mask.next_tokens)
    least = min(behind.values(), default=0.0)
    rows = "".join(
        f"<dt>{_token(word)}</dt><dd>{_bar(share)}{_bar(behind.get(word), 'masked', below=least)}</dd>"
        for word, share in live.dense.next_tokens
    )
    top = live.behind_mask.next_tokens[0]
    now = "" if top[0] == live.dense.next_tokens[0][0] else f"<p>Now likeliest: <b>{_token(top[0])}</b></p>"
    return f'<h3>Next word <small>probability, as it is and behind masks</small></h3><dl class="next">{rows}</dl>{now}'


def _bar(share: float | None, kind: str = "dense", *, below: float = 0.0) -> str:
    """A probability as a bar; one that is not known is `below` another."""
    shown = f"under {numbers.percent(below, 1)}" if share is None else numbers.percent(share, 1)
    share = share or 0.0
    return f'<span class="{kind}"><i style="width:{100 * share:.1f}%"></i><b>{shown}</b></span>'


def _token(word: str) -> str:
    """Line breaks and spaces are tokens as well."""
    return escape(word).replace("\n", "↵").replace(" ", "␣", 1) if not word.strip() else escape(word.strip())


def _pane(title: str, words: str) -> str:
    return f'<section class="said"><h3>{title}</h3>{words}</section>'


def _text(prompt: str, words: str) -> str:
    return f"<p><span>{escape(prompt)}</span>{words}</p>"
