"""What every event works with, and how its work is shown while it runs."""

import functools
import inspect
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import gradio as gr
from gradio.components import Component

import transact as ta
from ui import activity, failures
from ui.audience import Audience, address
from ui.export import Exports
from ui.jobs import MAX_JOBS, MODEL, Finished, Jobs, Partial, Tick, Watch
from ui.models import Registry
from ui.pages import (
    calibration,
    compare,
    contrast,
    layer,
    maps,
    measure,
    model,
    reading,
    recover,
    redundancy,
    share,
    status,
    takeaway,
    trust,
)
from ui.session import Scored, Session, Sessions
from ui.telemetry import Telemetry

T = TypeVar("T")
HEAVY = {"concurrency_id": "model", "concurrency_limit": MAX_JOBS + 8}
"""More events than jobs, so that who comes when the line is full hears of it instead of waiting unseen."""
LIGHT = {"concurrency_id": "light", "concurrency_limit": 32}
ONE_AT_A_TIME = {"concurrency_id": "texts", "concurrency_limit": 1}
MAX_THREADS = 128
"""Every event that runs or waits takes a thread. Enough for both kinds together and for gradio's own: were there
fewer, a slider could wait for one until a job ends."""
_PAGES = {
    "status": status,
    "model": model,
    "calibration": calibration,
    "maps": maps,
    "layer": layer,
    "reading": reading,
    "contrast": contrast,
    "trust": trust,
    "measure": measure,
    "recover": recover,
    "compare": compare,
    "redundancy": redundancy,
    "takeaway": takeaway,
    "share": share,
}


@dataclass(frozen=True)
class Desk:
    """The app's collaborators; one set for all visitors.

    `unpainted`: what the steps of a visitor left that is still to be shown (see `long_step`).
    """

    registry: Registry
    sessions: Sessions
    jobs: Jobs
    exports: Exports
    telemetry: Telemetry
    first_scored: Scored | None
    unpainted: dict[str, dict] = field(default_factory=dict)
    audience: Audience = field(default_factory=Audience)

    def visitor(self, request: gr.Request) -> str:
        """Whose work is done on a page: its browser tab's; a caller without a name is new each time."""
        return self._known(self.sessions.owner_on_page, request)

    def client(self, request: gr.Request) -> str:
        """Whose work a script does, which has no tab."""
        return self._known(self.sessions.owner, request)

    def left(self, session_hash: str) -> None:
        """End the work of a visitor who is gone, unless another page of the same one is open."""
        if self.sessions.leave(session_hash):
            self.jobs.stop_all(self.sessions.owner(session_hash))

    def _known(self, owner_of: Callable[[str], str], request: gr.Request) -> str:
        owner = owner_of(request.session_hash) if request.session_hash else secrets.token_hex(16)
        asked = getattr(request, "request", None)
        if asked is not None:
            self.jobs.come_from(owner, address(asked.scope))
        return owner


@dataclass(frozen=True)
class Panels:
    """All parts of the page."""

    status: status.StatusPanel
    model: model.ModelPanel
    calibration: calibration.CalibrationPanel
    maps: maps.MapsPanel
    layer: layer.LayerPanel
    reading: reading.ReadingPanel
    contrast: contrast.ContrastPanel
    trust: trust.TrustPanel
    measure: measure.MeasurePanel
    recover: recover.RecoverPanel
    compare: compare.ComparePanel
    redundancy: redundancy.RedundancyPanel
    takeaway: takeaway.TakeawayPanel
    share: share.SharePanel

    @property
    def light(self) -> dict:
        """How an event is wired that takes milliseconds."""
        return self._wiring(LIGHT)

    @property
    def heavy(self) -> dict:
        """How an event is wired that needs the model.

        A visitor who waits for the model must see it and be able to leave, so waiting happens in the job, which
        holds the model lock, and not in gradio's queue, where Stop could not reach it.
        """
        return self._wiring(HEAVY)

    @property
    def progress(self) -> list[Component]:
        """What a job touches while it runs."""
        return [self.status.progress, self.status.stop, self.status.message]

    @property
    def one_at_a_time(self) -> dict:
        """How an event is wired that reads a stranger's text before any job does; who waits holds no thread."""
        return self._wiring(ONE_AT_A_TIME)

    def _wiring(self, concurrency: dict) -> dict:
        """Gradio copies the whole state of all that ever showed progress at every event; one small part shows it."""
        return {
            **concurrency,
            "show_progress": "hidden",
            "show_progress_on": self.status.progress,
            "api_visibility": "private",
        }

    def repaint(self, session: Session) -> dict:
        """Every part, from the session."""
        painted = {}
        for name, page in _PAGES.items():
            painted |= page.paint(getattr(self, name), session)
        return painted

    def repaint_marks(self, session: Session) -> dict:
        """The parts that a slider moves at once."""
        return {**status.paint(self.status, session), **maps.paint_marks(self.maps, session)}

    def repaint_followers(self, session: Session) -> dict:
        """The parts that follow a moment later."""
        return {
            **layer.paint_choice(self.layer, session),
            **takeaway.paint(self.takeaway, session),
        }

    def repaint_selection(self, session: Session) -> dict:
        """The parts that follow another unit in view."""
        return {
            self.maps.link: maps.marks(session),
            **layer.paint_choice(self.layer, session),
            **reading.paint(self.reading, session),
        }

    def repaint_plan(self, session: Session) -> dict:
        """The parts that follow another metric, or undo and redo, which may bring back other scores."""
        return {
            **maps.paint(self.maps, session),
            **self.repaint_followers(session),
            **calibration.paint(self.calibration, session),
            **reading.paint(self.reading, session),
            **contrast.paint(self.contrast, session),
            **trust.paint(self.trust, session),
            **status.paint(self.status, session),
        }

    @property
    def marked(self) -> list[Component]:
        """What the controls of a plan touch at once."""
        own = self.maps
        controls = [own.metric, own.attention, own.mlp, own.kind, own.share, own.allocation, own.granularity]
        marks = [own.link, own.note, own.undo, own.redo]
        return [self.status.savings, self.status.message, *controls, *marks]

    @property
    def followers(self) -> list[Component]:
        """What `repaint_followers` touches."""
        return [*parts(self.layer), *parts(self.takeaway)]

    def repaint_below(self, session: Session) -> dict:
        """The figures that wait until both maps are drawn, so that a visitor sees these first."""
        return {
            **layer.paint_choice(self.layer, session),
            **recover.paint(self.recover, session),
            **compare.paint(self.compare, session),
            **redundancy.paint(self.redundancy, session),
        }

    def repaint_results(self, session: Session) -> dict:
        """The parts that follow a new result."""
        return {
            **measure.paint(self.measure, session),
            **recover.paint(self.recover, session),
            **compare.paint(self.compare, session),
            **redundancy.paint(self.redundancy, session),
            **takeaway.paint(self.takeaway, session),
        }

    @property
    def all(self) -> list[Component]:
        """Every component, as the outputs of an event that may touch any."""
        return [component for name in _PAGES for component in parts(getattr(self, name))]


def parts(panel) -> list[Component]:
    """All components of one part of the page."""
    return [getattr(panel, field.name) for field in fields(panel)]


def say(panels: Panels, sentence: str, mood: activity.Mood = "plain") -> dict:
    """One sentence in the message line."""
    return {panels.status.message: activity.message(sentence, mood)}


def explained(panels: Panels, error: Exception) -> dict:
    """The sentence for an error: its own where it was meant for the visitor."""
    return say(panels, failures.sentence(error), "wrong")


def quick(panels: Panels, act: Callable[[], dict]) -> dict:
    """A step that takes milliseconds; wrong input becomes a sentence."""
    try:
        return {**say(panels, ""), **act()}
    except Exception as error:
        return explained(panels, error)


def long_step(
    desk: Desk,
    panels: Panels,
    listener: Callable[..., gr.events.Dependency],
    handler: Callable[..., Iterator[dict]],
    inputs,
    *,
    meanwhile: Sequence[Component] = (),
    at_the_end: Sequence[Component] = (),
    **wiring,
) -> gr.events.Dependency:
    """Wire a step that takes longer: what it shows on the way first, and what it leaves in an event of its own.

    Gradio makes each output of an event anew whenever something is yielded, also those that stay as they are: 70 ms
    where all parts of the page are outputs, several times a second, in which the work would stand still (one process,
    one interpreter lock). So outputs on the way are the line of progress and `meanwhile` alone; an update of any other
    part is kept until the step is over, and then painted on `at_the_end`.
    """
    shown = [*panels.progress, *meanwhile]
    wiring = {**panels.heavy, **wiring}
    request = list(inspect.signature(handler).parameters).index("request")

    @functools.wraps(handler)
    def on_the_way(*given):
        for update in handler(*given):
            if at_the_end and not update.keys() <= set(shown):
                desk.unpainted.setdefault(desk.visitor(given[request]), {}).update(update)
            else:
                yield update

    def paint(request: gr.Request):
        return desk.unpainted.pop(desk.visitor(request), {panels.status.message: gr.skip()})

    begun = listener(on_the_way, inputs, shown, **wiring)
    painted = list(dict.fromkeys([*shown, *at_the_end]))
    return begun.then(paint, None, painted, **panels.light) if at_the_end else begun


def watched(
    desk: Desk,
    panels: Panels,
    owner: str,
    title: str,
    work: Callable[[Watch], T],
    finish: Callable[[T], dict],
    *,
    failed: Callable[[Exception], dict] | None = None,
    partly: Callable[[object], dict] = lambda found: {},
    stopped: str = "Stopped. Everything is as it was before.",
    kind: str = "other",
    line: str | None = MODEL,
) -> Iterator[dict]:
    """A step that takes longer: progress while it runs, then `finish`'s updates, or a sentence.

    `failed` gives the updates for an error, by default its sentence in the message line; `partly` those for what the
    work has found so far; `stopped` says what a stop leaves behind; `kind` and `line` as for `Jobs.run`.
    """
    try:
        for event in desk.jobs.run(owner, title, work, kind=kind, line=line):
            if isinstance(event, Finished):
                yield {**_over(desk, panels, owner), **say(panels, ""), **finish(event.value)}
            elif isinstance(event, Partial):
                yield partly(event.value)
            else:
                yield _running(panels, event)
    except ta.Cancelled:
        yield {**_over(desk, panels, owner), **say(panels, stopped)}
    except Exception as error:
        yield {**_over(desk, panels, owner), **(failed(error) if failed else explained(panels, error))}


def under_way(desk: Desk, panels: Panels, owner: str) -> Iterator[dict]:
    """The owner's job that another page load began, as far as it is, and at its end what it left."""
    ticked = False
    for tick in desk.jobs.under_way(owner):
        ticked = True
        yield _running(panels, tick)
    if ticked:
        yield {**_over(desk, panels, owner), **panels.repaint(desk.sessions.get(owner))}


def _running(panels: Panels, tick: Tick) -> dict:
    """The line of progress while work goes on."""
    return {
        panels.status.progress: activity.progress(tick),
        panels.status.stop: gr.update(interactive=not tick.stopping),
        panels.status.message: "",
    }


def _over(desk: Desk, panels: Panels, owner: str) -> dict:
    """The line of progress after a job, unless it is another one's by now."""
    if desk.jobs.busy(owner):
        return {}
    return {panels.status.progress: activity.idle(), panels.status.stop: gr.update(interactive=False)}
