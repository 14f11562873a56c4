"""The guide: a tour for a class or a visitor with two minutes, in a card beside the page it moves to.

It runs in the browser alone, so that it works while the model is busy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.format.theme import ASSETS
from ui.state.session import Session
from ui.views.guide_steps import STEPS, Step

DRAWINGS = ASSETS / "guide"
STYLE_SHEET = ASSETS / "guide.css"

SCRIPT = ASSETS / "guide.js"
"""Steps are shown and hidden, never drawn anew, so that listeners and the reader's place in the page stay."""


@dataclass(frozen=True)
class GuidePanel:
    card: gr.HTML


def build(session: Session) -> GuidePanel:
    drawings = {step.drawing: _drawing(step.drawing) for step in STEPS if step.drawing}
    script = SCRIPT.read_text(encoding="utf-8")
    return GuidePanel(gr.HTML(card(STEPS, drawings), js_on_load=script, apply_default_css=False, elem_id="guide-panel"))


def card(steps: tuple[Step, ...], drawings: Mapping[str, str]) -> str:
    """The button that opens the guide, and the card with all steps, as HTML. `drawings`: SVG by name."""
    articles = "".join(_article(step, number, len(steps), drawings) for number, step in enumerate(steps, 1))
    return (
        '<button type="button" id="guide-open" data-guide="open" aria-expanded="false" aria-controls="guide">'
        "Guide</button>"
        '<section id="guide" role="dialog" aria-label="Guide" tabindex="-1" hidden>'
        f'<div class="guide-steps" aria-live="polite">{articles}</div>'
        '<footer><button type="button" data-guide="close">Close</button>'
        '<button type="button" data-guide="back">Back</button>'
        '<button type="button" data-guide="next">Next</button></footer></section>'
    )


def _article(step: Step, number: int, count: int, drawings: Mapping[str, str]) -> str:
    drawing = drawings[step.drawing] if step.drawing else ""
    return (
        f'<article data-target="{escape(step.target)}" data-tab="{escape(step.tab)}" hidden>'
        f'<p class="guide-count">Guide, step {number} of {count} '
        f'<span class="guide-bar"><i style="width: {100 * number // count}%"></i></span></p>'
        f"<h3>{escape(step.title)}</h3>{drawing}<p>{escape(step.words)}</p>"
        f'<p class="guide-try"><b>Try</b> {escape(step.try_this)}</p></article>'
    )


def _drawing(name: str) -> str:
    return (DRAWINGS / f"{name}.svg").read_text(encoding="utf-8")
