"""Looking deeper: a second text beside the first, and whether more text would choose otherwise."""

from dataclasses import replace

import gradio as gr

from ui.context import AppContext
from ui.events.panels import Panels, parts
from ui.events.runner import explained, long_step, say, watched
from ui.pages import contrast, trust
from ui.state.session import Scored, Session, Steadiness
from ui.text_sources import text_source
from ui.work import job_steps, measuring, scoring


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the second text and the stability check."""
    score, check = panels.contrast.score.click, panels.trust.check.click
    long_step(context, panels, score, on_second, panels.contrast.source, at_the_end=parts(panels.contrast))
    long_step(context, panels, check, on_check, None, at_the_end=parts(panels.trust))


def on_second(context: AppContext, panels: Panels, source, request: gr.Request):
    owner = context.visitor(request)
    try:
        first = context.sessions.get(owner).need_scored()
        text = text_source.sample(source)
    except Exception as error:
        yield explained(panels, error)
        return

    def finish(scored: Scored) -> dict:
        session = context.sessions.update(
            owner, lambda old: replace(old, second=scored) if old.key == scored.key else old
        )
        return {**contrast.paint(panels.contrast, session), **say(panels, f"Scored {text.name} as well.", "good")}

    yield from watched(
        context, panels, owner, f"Scoring on {text.name}",
        lambda watch: scoring.score(context.registry, first.key, text, first.sampling, watch), finish, kind="score",
    )  # fmt: skip


def on_check(context: AppContext, panels: Panels, request: gr.Request):
    owner = context.visitor(request)
    try:
        session = context.sessions.get(owner)
        session.need_plan()
    except Exception as error:
        yield explained(panels, error)
        return

    def finish(steadiness: Steadiness) -> dict:
        def change(old: Session) -> Session:
            return replace(old, steadiness=steadiness)

        return trust.paint(panels.trust, context.sessions.update(owner, change))

    yield from watched(
        context, panels, owner, "Checking stability",
        lambda watch: measuring.steadiness(context.registry, session, watch), finish, kind="stability",
        steps=job_steps.checking_stability(context.registry, session.scored),
    )  # fmt: skip
