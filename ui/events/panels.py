"""All parts of the page, how they are repainted, and how an event on them is wired."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

from gradio.components import Component

from ui.state.session import Session
from ui.work.job_queue import MAX_JOBS

HEAVY = {"concurrency_id": "model", "concurrency_limit": MAX_JOBS + 8}
"""More events than jobs, so that callers are refused at once when the queue of jobs is full, instead of waiting unseen
in gradio's."""
LIGHT = {"concurrency_id": "light", "concurrency_limit": 32}
ONE_AT_A_TIME = {"concurrency_id": "texts", "concurrency_limit": 1}
MAX_THREADS = 128
"""Every event that runs or waits takes a thread. Enough for both kinds together and for gradio's own: were there
fewer, a slider could wait for one until a job ends."""

TAGS = {
    "all": "a new model or new scores",
    "controls": "a control that moves others: they stand where the choice has put them",
    "marks": "a slider, at once",
    "followers": "a slider, a moment later",
    "selection": "another unit in view",
    "plan": "another metric, or undo and redo, which may bring back other scores",
    "below": "the page has opened, and its maps are drawn",
    "results": "a new result",
}
"""What a repainting may follow, under the names by which the pages' `PAINTS` declare it."""


@dataclass(frozen=True)
class Panels:
    """The parts of the page by name: `panels.maps` is what `ui.pages.maps` built.

    `modules`: the page of each part, whose `PAINTS` says by tag how the part is repainted. `built`: its components.
    """

    modules: Mapping[str, ModuleType]
    built: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["built"][name]
        except KeyError:
            raise AttributeError(f"The page has no part “{name}”.") from None

    def repaint(self, session: Session, tag: str = "all") -> dict:
        """The parts that follow a change of that kind, one of `TAGS`, from the session."""
        painted = {}
        for name, paint in self._paints(tag).items():
            painted |= paint(self.built[name], session)
        return painted

    @property
    def all(self) -> list[Component]:
        """Every component, as the outputs of an event that may touch any."""
        return [component for panel in self.built.values() for component in parts(panel)]

    @property
    def followers(self) -> list[Component]:
        """What repainting the followers touches."""
        return [component for name in self._paints("followers") for component in parts(self.built[name])]

    @property
    def marked(self) -> list[Component]:
        """What the controls of a plan touch at once."""
        own = self.maps
        controls = [own.metric, own.attention, own.mlp, own.finer, *parts(self.rules)]
        marks = [own.link, own.note, own.undo, own.redo]
        return [self.cut.savings, self.cut.verdict, self.status.message, *controls, *marks]

    @property
    def progress(self) -> list[Component]:
        """What a job touches while it runs."""
        return [self.status.progress, self.status.stop, self.status.message]

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
    def one_at_a_time(self) -> dict:
        """How an event is wired that reads a stranger's text before any job does; one that waits holds no thread."""
        return self._wiring(ONE_AT_A_TIME)

    def _paints(self, tag: str) -> dict:
        """The paint function of each part that follows a change of that kind."""
        assert tag in TAGS, tag
        return {name: module.PAINTS[tag] for name, module in self.modules.items() if tag in module.PAINTS}

    def _wiring(self, concurrency: dict) -> dict:
        """Gradio copies the whole state of all that ever showed progress at every event; one small part shows it."""
        return {
            **concurrency,
            "show_progress": "hidden",
            "show_progress_on": self.status.progress,
            "api_visibility": "private",
        }


def parts(panel) -> list[Component]:
    """All components of one part of the page."""
    return [getattr(panel, field.name) for field in fields(panel)]
