"""The parts of the page in one table: the layout, the repainting and the events all follow from it."""

from dataclasses import dataclass
from types import ModuleType

import gradio as gr

import ui.events.answers
import ui.events.attention
import ui.events.compare
import ui.events.downloads
import ui.events.goal
import ui.events.lessons
import ui.events.live
import ui.events.load_and_score
import ui.events.look
import ui.events.measure
import ui.events.options
import ui.events.plan_controls
import ui.events.queue
import ui.events.recover
import ui.events.selection
import ui.events.share
import ui.events.stop
import ui.events.tasks
import ui.events.times
import ui.pages.answers
import ui.pages.attention
import ui.pages.calibration
import ui.pages.compare
import ui.pages.contrast
import ui.pages.cut
import ui.pages.goal
import ui.pages.guide
import ui.pages.layer
import ui.pages.live
import ui.pages.maps
import ui.pages.measure
import ui.pages.model
import ui.pages.queue
import ui.pages.reading
import ui.pages.recover
import ui.pages.redundancy
import ui.pages.rules
import ui.pages.share
import ui.pages.status
import ui.pages.takeaway
import ui.pages.tasks
import ui.pages.trust
from ui.context import AppContext
from ui.events.panels import Panels
from ui.state.session import Session

BAR, RAIL, MAIN, LIVE, UNIT, RESULTS, TRAIN, TAKE = "bar", "rail", "main", "live", "unit", "results", "train", "take"
"""Where a part stands: in the bar on top, the rail beside the maps, under the maps, or in a tab below."""
TABS = {LIVE: "Live", UNIT: "Unit", RESULTS: "Results", TRAIN: "Train back", TAKE: "Take away"}


@dataclass(frozen=True)
class Page:
    """One part of the page.

    `module` builds it (`build`) and says by tag how it is repainted (`PAINTS`). `events` wires its controls
    (`connect`), and often those of a part beside it. `place`: one of those above; where one tab holds several parts
    that are seen one at a time, each has a `title` and an id.
    """

    name: str
    module: ModuleType
    events: ModuleType | None = None
    place: str = MAIN
    title: str = ""
    tab_id: str = ""


PAGES = (
    Page("guide", ui.pages.guide, ui.events.lessons, BAR),
    Page("status", ui.pages.status, ui.events.stop, BAR),
    Page("model", ui.pages.model, ui.events.load_and_score, RAIL),
    Page("calibration", ui.pages.calibration, place=RAIL),
    Page("goal", ui.pages.goal, ui.events.goal, RAIL),
    Page("rules", ui.pages.rules, place=RAIL),
    Page("maps", ui.pages.maps, ui.events.plan_controls),
    Page("cut", ui.pages.cut, ui.events.options),
    Page("live", ui.pages.live, ui.events.live, LIVE),
    Page("layer", ui.pages.layer, ui.events.selection, UNIT, "Layer close up", "closer-layer"),
    Page("reading", ui.pages.reading, None, UNIT, "What does this unit read?", "closer-reading"),
    Page("attention", ui.pages.attention, ui.events.attention, UNIT, "Attention", "closer-attention"),
    Page("contrast", ui.pages.contrast, ui.events.look, UNIT, "Two texts", "closer-texts"),
    Page("trust", ui.pages.trust, None, UNIT, "Can I trust it?", "closer-trust"),
    Page("queue", ui.pages.queue, ui.events.queue, RESULTS),
    Page("measure", ui.pages.measure, ui.events.measure, RESULTS),
    Page("answers", ui.pages.answers, ui.events.answers, RESULTS),
    Page("compare", ui.pages.compare, ui.events.compare, RESULTS),
    Page("tasks", ui.pages.tasks, ui.events.tasks, RESULTS),
    Page("redundancy", ui.pages.redundancy, ui.events.times, RESULTS),
    Page("recover", ui.pages.recover, ui.events.recover, TRAIN),
    Page("takeaway", ui.pages.takeaway, ui.events.downloads, TAKE),
    Page("share", ui.pages.share, ui.events.share, TAKE),
)
"""Top to bottom in each place."""


def lay_out(session: Session) -> Panels:
    """Build every part in its place; must be called inside the page's Blocks."""
    built = _stacked(BAR, session)
    with gr.Row(elem_id="page"):
        with gr.Column(elem_id="rail", scale=0, min_width=280):
            built |= _stacked(RAIL, session)
        with gr.Column(elem_id="main", scale=1, min_width=320):
            built |= _stacked(MAIN, session)
            with gr.Tabs(elem_id="parts", overflow_behavior="wrap"):
                for place, title in TABS.items():
                    with gr.Tab(title, id=place, elem_id=f"part-{place}"):
                        built |= _stacked(place, session)
    return Panels({page.name: page.module for page in PAGES}, {page.name: built[page.name] for page in PAGES})


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the controls of every part; must be called inside the page's Blocks."""
    for page in PAGES:
        if page.events is not None:
            page.events.connect(context, panels)


def _stacked(place: str, session: Session) -> dict:
    """The parts of one place, one below the other, or one at a time where they have titles."""
    pages = [page for page in PAGES if page.place == place]
    if not any(page.title for page in pages):
        return {page.name: page.module.build(session) for page in pages}
    built = {}
    with gr.Tabs(elem_id="closer", overflow_behavior="wrap"):
        for page in pages:
            with gr.Tab(page.title, elem_id=page.tab_id):
                built[page.name] = page.module.build(session)
    return built
