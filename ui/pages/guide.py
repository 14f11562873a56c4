"""The guide: lessons that ask, press and reveal, in a place of their own beside what they speak of.

Turning over and revealing run in the browser alone, so that they work while the model is busy; only what a lesson sets
on the page goes through the server, as a slider's move does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.format.theme import ASSETS
from ui.state.session import Session
from ui.views.lessons import LESSONS, PROTOCOL, Lesson

DRAWINGS = ASSETS / "guide"
STYLE_SHEET = ASSETS / "guide.css"

SCRIPT = ASSETS / "guide.js"
"""Lessons are shown and hidden, never drawn anew, so that listeners and the reader's place in the page stay."""


@dataclass(frozen=True)
class GuidePanel:
    card: gr.HTML


def build(session: Session) -> GuidePanel:
    drawings = {lesson.drawing: _drawing(lesson.drawing) for lesson in LESSONS if lesson.drawing}
    script = SCRIPT.read_text(encoding="utf-8")
    return GuidePanel(
        gr.HTML(card(LESSONS, drawings), js_on_load=script, apply_default_css=False, elem_id="guide-panel")
    )


PAINTS: dict = {}


def card(lessons: tuple[Lesson, ...], drawings: Mapping[str, str]) -> str:
    """The button that opens the guide, and the card with all lessons, as HTML. `drawings`: SVG by name."""
    articles = "".join(_article(lesson, number, len(lessons), drawings) for number, lesson in enumerate(lessons, 1))
    return (
        '<button type="button" id="guide-open" data-guide="open" aria-expanded="false" aria-controls="guide">'
        "Guide</button>"
        '<section id="guide" role="dialog" aria-label="Guide" tabindex="-1" hidden>'
        f"<header>{_button('large', 'Large type', pressed=False)}{_button('link', 'Copy link')}"
        f"{_button('close', 'Close')}</header>"
        f'<div class="guide-steps" aria-live="polite">{articles}</div>'
        f"<footer>{_button('back', 'Back')}{_button('next', 'Next')}</footer></section>"
    )


def _article(lesson: Lesson, number: int, count: int, drawings: Mapping[str, str]) -> str:
    drawing = drawings[lesson.drawing] if lesson.drawing else ""
    options = "".join(
        f'<button type="button" data-option="{index}">{escape(option)}</button>'
        for index, option in enumerate(lesson.options)
    )
    return (
        f'<article data-target="{escape(lesson.target)}" data-tab="{escape(lesson.tab)}" data-right="{lesson.right}" '
        f'hidden><p class="guide-count">Lesson {number} of {count} '
        f'<span class="guide-bar"><i style="width: {100 * number // count}%"></i></span></p>'
        f"<h3>{escape(lesson.title)}</h3>"
        f'<div class="lesson-ask"><p>{escape(lesson.words)}</p>{drawing}<p class="lesson-question">'
        f'{escape(lesson.question)}</p><div class="lesson-options" role="group" aria-label="Your prediction">{options}'
        "</div></div>"
        f'<div class="lesson-reveal" tabindex="-1" hidden><p class="lesson-verdict"></p><p>{escape(lesson.reveal)}</p>'
        f'{lesson.figure}<p class="guide-try"><b>Now you</b> {escape(lesson.yours)}</p>'
        f"<details><summary>Measured beforehand, as follows</summary><p>{escape(PROTOCOL)}</p></details>"
        "</div></article>"
    )


def _button(name: str, words: str, *, pressed: bool | None = None) -> str:
    """`pressed`: at first, of a button that stays pressed."""
    state = "" if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    return f'<button type="button" data-guide="{name}"{state}>{words}</button>'


def _drawing(name: str) -> str:
    return (DRAWINGS / f"{name}.svg").read_text(encoding="utf-8")
