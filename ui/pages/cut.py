"""Steps 5 and 6, try and cut: what the plan saves and costs, how it is repaired, and the actions on it."""

from collections.abc import Iterable
from dataclasses import dataclass

import gradio as gr

import transact as ta
from ui.state.session import Session
from ui.text_sources import text_source
from ui.views import savings
from ui.views.verdict import verdict

PASTE = "paste"
_TEXTS = [
    *((f"Held-out: {label.lower()}", name) for name, label in text_source.SAMPLES.items()),
    ("Paste your own", PASTE),
]
_REPAIRS = tuple(reversed(ta.REPAIRS.values()))  # the strongest first, and the one that is chosen


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
    pasted: gr.Textbox


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
    with gr.Row(elem_classes="bottom", elem_id="cut-options"):
        repair = gr.Dropdown(
            _named(_REPAIRS),
            value=_REPAIRS[0].name,
            label="Repair (compensation)",
            elem_id="repair-select",
            elem_classes="inline",
            scale=4,
            filterable=False,
        )
        measure_on = gr.Dropdown(
            _TEXTS, value="mixed", label="Measure on", elem_id="measure-on", elem_classes="inline", scale=4
        )
        search = gr.Checkbox(
            True,
            label="Search what goes",
            elem_id="search-choice",
            scale=2,
            min_width=140,
        )
    pasted = gr.Textbox(label="Evaluation text", lines=4, max_lines=10, visible=False, elem_id="evaluation-text")
    return CutPanel(strip, words, try_button, prune, again, repair, search, measure_on, pasted)


def paint(panel: CutPanel, session: Session) -> dict:
    """Everything, also the repairs that this model can have."""
    return {**paint_plan(panel, session), panel.repair: _repairs(session)}


def paint_plan(panel: CutPanel, session: Session) -> dict:
    """What the plan in view saves and costs."""
    return {panel.savings: savings.strip(session.plan), panel.verdict: verdict(session)}


PAINTS = {"all": paint, "marks": paint_plan, "plan": paint_plan, "results": paint}


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
