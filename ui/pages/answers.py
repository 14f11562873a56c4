"""What the models answered to each item of the tasks that the bundled one learnt."""

from dataclasses import dataclass

import gradio as gr

from ui.state.session import Answers, Session
from ui.views import answers_table

TRIED = 0
"""Stands for the last try behind masks where a result has its number."""


@dataclass(frozen=True)
class AnswersPanel:
    part: gr.Column
    of: gr.Dropdown
    kind: gr.Dropdown
    table: gr.HTML


def build(session: Session) -> AnswersPanel:
    with gr.Column(visible=False, elem_id="answers") as part:
        gr.HTML(
            "<h3>Answer by answer</h3><p>What each model answered to the same questions; those that were lost come "
            "first.</p>",
            js_on_load=None,
        )
        with gr.Row(elem_classes="bottom"):
            of = gr.Dropdown([], label="Of", elem_id="answers-of", elem_classes="inline", filterable=False)
            kind = gr.Dropdown([], label="Task", elem_id="answers-kind", elem_classes="inline", filterable=False)
        table = gr.HTML("", elem_id="answers-table", js_on_load=None)
    return AnswersPanel(part, of, kind, table)


def paint(panel: AnswersPanel, session: Session, number: int | None = None, kind: str | None = None) -> dict:
    """The answers of a result (by default the newest, `TRIED`: of the last try) to the tasks of one kind.

    By default that of which most was lost. Where nothing was answered, nothing stands there.
    """
    known = answered(session)
    if not known:
        return {panel.part: gr.update(visible=False)}
    number = number if number in known else max(known)
    answers = known[number]
    lost = {one.kind: one.correct - other.correct for one, other in answers}
    kind = kind if kind in lost else max(lost, key=lost.get)
    dense, other = next(pair for pair in answers if pair[0].kind == kind)
    return {
        panel.part: gr.update(visible=True),
        panel.of: gr.update(choices=[(_name(each), each) for each in sorted(known, reverse=True)], value=number),
        panel.kind: gr.update(choices=[_task(*pair) for pair in answers], value=kind),
        panel.table: answers_table.answers_table(dense, other, "Behind masks" if number == TRIED else "Pruned"),
    }


PAINTS = {"all": paint, "results": paint}


def answered(session: Session) -> dict[int, Answers]:
    """The answers of the model in view that are known, by number of the result."""
    known = {one.number: one.answers for one in session.results if one.answers and one.scored.key == session.key}
    tried = session.tried
    if tried is not None and tried.answers and tried.plan.dense_spec == session.spec:
        known[TRIED] = tried.answers
    return known


def _name(number: int) -> str:
    return "The last try, behind masks" if number == TRIED else f"Result {number}"


def _task(dense, other) -> tuple[str, str]:
    return f"{dense.kind}: {dense.correct} → {other.correct} of {dense.total} right", dense.kind
