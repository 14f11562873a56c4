"""All parts of the page, how they are repainted, and how an event on them is wired."""

from dataclasses import dataclass, fields

from gradio.components import Component

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
from ui.state.session import Session
from ui.work.jobs import MAX_JOBS

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
