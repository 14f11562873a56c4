"""The parts of the page in one table: the layout, the repainting and the events all follow from it."""

from dataclasses import dataclass
from itertools import groupby
from types import ModuleType

import gradio as gr

import ui.events.compare
import ui.events.downloads
import ui.events.goal
import ui.events.load_and_score
import ui.events.look
import ui.events.measure
import ui.events.plan_controls
import ui.events.recover
import ui.events.selection
import ui.events.share
import ui.events.stop
import ui.pages.calibration
import ui.pages.compare
import ui.pages.contrast
import ui.pages.goal
import ui.pages.layer
import ui.pages.maps
import ui.pages.measure
import ui.pages.model
import ui.pages.reading
import ui.pages.recover
import ui.pages.redundancy
import ui.pages.share
import ui.pages.status
import ui.pages.takeaway
import ui.pages.trust
from ui.context import AppContext
from ui.events.panels import Panels
from ui.state.session import Session

SIDEBAR, MAIN, CLOSER = "sidebar", "main", "closer"


@dataclass(frozen=True)
class Page:
    """One part of the page.

    `module` builds it (`build`) and says by tag how it is repainted (`PAINTS`). `events` wires its controls
    (`connect`), and often those of a part beside it. `place`: the sidebar, the main column, or a tab of the main
    column's close-up, which has a `title` and an id.
    """

    name: str
    module: ModuleType
    events: ModuleType | None = None
    place: str = MAIN
    title: str = ""
    tab_id: str = ""


PAGES = (
    Page("status", ui.pages.status, ui.events.stop),
    Page("model", ui.pages.model, ui.events.load_and_score, SIDEBAR),
    Page("calibration", ui.pages.calibration, place=SIDEBAR),
    Page("maps", ui.pages.maps, ui.events.plan_controls),
    Page("layer", ui.pages.layer, ui.events.selection, CLOSER, "Layer close up", "closer-layer"),
    Page("reading", ui.pages.reading, None, CLOSER, "What does this unit read?", "closer-reading"),
    Page("contrast", ui.pages.contrast, ui.events.look, CLOSER, "Two texts", "closer-texts"),
    Page("trust", ui.pages.trust, None, CLOSER, "Can I trust it?", "closer-trust"),
    Page("goal", ui.pages.goal, ui.events.goal),
    Page("measure", ui.pages.measure, ui.events.measure),
    Page("recover", ui.pages.recover, ui.events.recover),
    Page("compare", ui.pages.compare, ui.events.compare),
    Page("redundancy", ui.pages.redundancy),
    Page("takeaway", ui.pages.takeaway, ui.events.downloads),
    Page("share", ui.pages.share, ui.events.share),
)
"""Top to bottom in each place; the tabs stand where the first of them is."""


def lay_out(session: Session) -> Panels:
    """Build every part in its place; must be called inside the page's Blocks."""
    built = {}
    with gr.Row(elem_id="page"):
        with gr.Column(elem_id="sidebar", scale=0, min_width=300):
            built |= _stacked([page for page in PAGES if page.place == SIDEBAR], session)
        with gr.Column(elem_id="main", scale=1, min_width=320):
            others = [page for page in PAGES if page.place != SIDEBAR]
            for place, pages in groupby(others, key=lambda page: page.place):
                build = _tabs if place == CLOSER else _stacked
                built |= build(list(pages), session)
    return Panels({page.name: page.module for page in PAGES}, {page.name: built[page.name] for page in PAGES})


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the controls of every part; must be called inside the page's Blocks."""
    for page in PAGES:
        if page.events is not None:
            page.events.connect(context, panels)


def _stacked(pages: list[Page], session: Session) -> dict:
    return {page.name: page.module.build(session) for page in pages}


def _tabs(pages: list[Page], session: Session) -> dict:
    built = {}
    with gr.Tabs(elem_id=CLOSER, overflow_behavior="wrap"):
        for page in pages:
            with gr.Tab(page.title, elem_id=page.tab_id):
                built |= _stacked([page], session)
    return built
