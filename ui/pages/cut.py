"""Steps 5 and 6, try and cut: what the plan saves and costs, how it is repaired, and the actions on it."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import gradio as gr

import transact as ta
from ui.state.options import DATASET, FULL, HELD_OUT, PASTE, QUICK, UPLOAD
from ui.state.session import Session
from ui.text_sources import own_text_fields, text_source
from ui.views import savings
from ui.views.verdict import verdict

_TEXTS = [
    *((f"Held-out: {label.lower()}", name) for name, label in text_source.SAMPLES.items()),
    ("Paste your own", PASTE),
    ("Upload a file", UPLOAD),
    ("A Hugging Face dataset", DATASET),
]
_SIZES = [("quick, 30 s", QUICK), ("the whole text", FULL)]
_NAME_CHARACTERS = 40
_REPAIRS = tuple(reversed(ta.REPAIRS.values()))  # the strongest first, and the one that is chosen


@dataclass(frozen=True)
class MeasureForm:
    """What stands in the fields that say what is measured, as the page sends it; nothing is checked yet."""

    measure_on: str
    size: str
    pasted: str | None
    file: str | None
    column: str | None
    dataset: str | None
    config: str | None
    split: str | None
    dataset_column: str | None


@dataclass(frozen=True)
class CutPanel:
    savings: gr.HTML
    verdict: gr.HTML
    try_button: gr.Button
    prune: gr.Button
    measure: gr.Button
    repair: gr.Dropdown
    search: gr.Checkbox
    measure_on: gr.Dropdown
    size: gr.Dropdown
    pasted: gr.Textbox
    file: gr.File
    column: gr.Dropdown
    dataset_fields: gr.Column
    dataset: gr.Textbox
    config: gr.Textbox
    split: gr.Textbox
    dataset_column: gr.Textbox

    @property
    def measured_on(self) -> list:
        """What measuring depends on, in the order of `MeasureForm`."""
        return [getattr(self, field.name) for field in fields(MeasureForm)]


def build(session: Session) -> CutPanel:
    with gr.Column(elem_id="cut"):
        strip = gr.HTML(savings.strip(session.plan), elem_id="savings", js_on_load=None)
        with gr.Row(elem_id="verdict-row"):
            words = gr.HTML(verdict(session), elem_id="verdict", js_on_load=None)
            try_button = gr.Button("Try, cut nothing", elem_id="try-button", size="sm", min_width=120, scale=0)
            prune = gr.Button(
                "Prune and measure", elem_id="prune-button", size="sm", variant="primary", min_width=140, scale=0
            )
            again = gr.Button("Measure again", elem_id="measure-button", size="sm", min_width=110, scale=0)
    options = session.options
    with gr.Row(elem_classes="bottom", elem_id="cut-options"):
        repair = gr.Dropdown(
            _named(_REPAIRS), value=options.repair, label="Repair (compensation)", elem_id="repair-select",
            elem_classes="inline", scale=3, min_width=260, filterable=False,
        )  # fmt: skip
        measure_on = gr.Dropdown(
            _texts(session), value=session.measure_on, label="Measure on", elem_id="measure-on", elem_classes="inline",
            scale=3, min_width=240,
        )  # fmt: skip
        search = gr.Checkbox(options.search, label="Search what goes", elem_id="search-choice", scale=0, min_width=170)
        size = gr.Dropdown(
            _SIZES, value=options.size, show_label=False, label="How much is measured", container=False,
            elem_id="measure-size", scale=0, min_width=140, filterable=False,
        )  # fmt: skip
    pasted = gr.Textbox(label="Evaluation text", lines=4, max_lines=10, visible=False, elem_id="evaluation-text")
    own = own_text_fields.build("evaluation", "evaluation-dataset", split="test")
    return CutPanel(
        strip, words, try_button, prune, again, repair, search, measure_on, size, pasted, own.file, own.column,
        own.dataset_fields, own.dataset, own.config, own.split, own.dataset_column,
    )  # fmt: skip


def paint(panel: CutPanel, session: Session) -> dict:
    """Everything, also the repairs that this model can have and the texts that there are."""
    return {**paint_scores(panel, session), panel.repair: _repairs(session)}


def paint_scores(panel: CutPanel, session: Session) -> dict:
    """What follows other scores: a part of their text may be held out."""
    texts = gr.update(choices=_texts(session), value=session.measure_on)
    return {**paint_plan(panel, session), panel.measure_on: texts}


def paint_plan(panel: CutPanel, session: Session) -> dict:
    """What the plan in view saves and costs."""
    return {panel.savings: savings.strip(session.plan), panel.verdict: verdict(session)}


PAINTS = {"all": paint, "marks": paint_plan, "plan": paint_scores, "results": paint}


def _texts(session: Session) -> list[tuple[str, str]]:
    """The texts that can be measured on, first the part that is held out of the visitor's own."""
    scored = session.scored
    if scored is None or scored.held_out is None:
        return _TEXTS
    return [(f"Held out of {scored.text.name[:_NAME_CHARACTERS]}", HELD_OUT), *_TEXTS]


def _repairs(session: Session) -> dict:
    """All of them, or those for which a streamed model is read once, with the last one chosen."""
    if not session.streamed:
        return gr.update(choices=_named(_REPAIRS))
    possible = [repair for repair in _REPAIRS if repair.streams]
    last = None if session.latest is None else session.latest.repair
    is_possible = any(repair.name == last for repair in possible)
    return gr.update(choices=_named(possible), value=last if is_possible else possible[0].name)


def _named(repairs: Iterable[ta.Repair]) -> list[tuple[str, str]]:
    return [(repair.label, repair.name) for repair in repairs]
