"""A lesson presses: the sliders, a head in the map, a text in the form, as a visitor would by hand."""

import gradio as gr

from ui.context import AppContext
from ui.events import live
from ui.events.panels import Panels
from ui.events.runner import bound, quick, say
from ui.events.selection import value_of
from ui.format import numbers
from ui.pages import calibration
from ui.server.limits import whole
from ui.state.lesson_settings import Press, pressed
from ui.state.session import BUNDLED, Session
from ui.views.lessons import LESSONS
from ui.work.live import PLAN, UNIT


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the lessons' own pressing, after which the live text is written anew."""
    lesson = bound(on_lesson, context, panels)
    set_up = panels.guide.card.select(lesson, None, panels.all, queue=False, **panels.light)
    live.follow(context, panels, set_up.then)


def on_lesson(context: AppContext, panels: Panels, event: gr.EventData, request: gr.Request) -> dict:
    def act() -> dict:
        number = whole("The lesson", value_of(event, "lesson"), 1, len(LESSONS))
        press = LESSONS[number - 1].press
        session = context.sessions.update(
            context.visitor(request), lambda old: pressed(old, press, context.first_scored)
        )
        return {
            **panels.repaint(session, "plan"),
            **panels.repaint(session, "selection"),
            **_fields(panels, press),
            panels.live.masked: PLAN if press.head is None else UNIT,
            **say(panels, _note(session, press)),
        }

    return quick(panels, act)


def _fields(panels: Panels, press: Press) -> dict:
    """The calibration text that is ready to be scored."""
    if press.text is None:
        return {}
    own = panels.calibration
    return {own.source: press.text, own.text: calibration.preview(press.text)}


def _note(session: Session, press: Press) -> str:
    head = ""
    if press.head is not None:
        selection = session.view.selection
        head = f"head {selection.head} of layer {selection.layer} selected, "
    shares = {"heads": session.choice.attention, "channels": session.choice.mlp}
    off = ", ".join(f"{name} {numbers.percent(share)} off" for name, share in shares.items())
    done = f"Set by the lesson: {head}{off}."
    other = "" if session.key == BUNDLED else " Its numbers are of the bundled model, not of the one in view."
    return f"{done} Undo takes it back.{other}"
