"""Standard tasks: the dense and the pruned model on tasks of `lm_eval`, where it is installed."""

from dataclasses import dataclass
from html import escape

import gradio as gr

import transact as ta
from ui.format import numbers
from ui.server import environment
from ui.state.session import Session
from ui.views.result_table import NOISE, row, scrolled_table
from ui.work import tasks

_DOCUMENTS = 100
_EMPTY = "Choose tasks and run them: how the dense and the pruned model do will stand here."


@dataclass(frozen=True)
class TasksPanel:
    names: gr.Dropdown
    documents: gr.Number
    start: gr.Button
    table: gr.HTML


def build(session: Session) -> TasksPanel:
    here, installed = tasks.names_here(), tasks.installed()
    gr.HTML(f"<h3>Standard tasks</h3><p>{_how(installed, bool(here))}</p>", js_on_load=None)
    can = installed and bool(here or tasks.may_name_others())
    with gr.Row(elem_classes="bottom", visible=can):
        names = gr.Dropdown(
            list(here), value=[], multiselect=True, label="Tasks", elem_id="tasks-select",
            allow_custom_value=tasks.may_name_others(), scale=3,
        )  # fmt: skip
        documents = gr.Number(
            _DOCUMENTS, label="Documents of each", precision=0, elem_id="tasks-documents", min_width=140, scale=1
        )
        start = gr.Button("Run the tasks", elem_id="tasks-button", size="sm", scale=0, min_width=120)
    table = gr.HTML(table_of(session), elem_id="tasks-table", js_on_load=None)
    return TasksPanel(names, documents, start, table)


def paint(panel: TasksPanel, session: Session) -> dict:
    return {panel.table: table_of(session)}


PAINTS = {"all": paint, "results": paint}


def table_of(session: Session) -> str:
    """A row for each score of the last run, with its standard errors; shares differ in points."""
    run = session.tasks
    if run is None or session.result(run.number) is None:
        return f'<div class="empty">{_EMPTY}</div>' if tasks.installed() else ""
    rows = [_row(key, scores) for key, scores in run.found.rows().items()]
    amount = f", the first {run.found.limit:,} documents of each" if run.found.limit else ""
    heads = ("Task", "Dense", f"Result {run.number}", "Difference")
    return (
        f"{scrolled_table('Standard tasks', heads, rows)}"
        f'<p class="note-line">By {escape(run.found.harness)}{amount}; ± one standard error.</p>'
    )


def _how(installed: bool, here: bool) -> str:
    if not installed:
        return "They need the package <code>lm_eval</code>, which is not installed where this page runs."
    if here:
        return "The questions that the field compares models by; dense and pruned model answer the same ones."
    if tasks.may_name_others():
        return (
            "Type a task’s name, such as <code>arc_easy</code>; its data are fetched from the hub. Tasks of your own "
            f"come from the folder that <code>{environment.TASKS}</code> names."
        )
    return f"This page offers none; whoever runs it can name a folder with tasks (<code>{environment.TASKS}</code>)."


def _row(key: tuple[str, str, str], scores: dict[str, ta.TaskScore]) -> str:
    task, metric, filter_name = key
    dense, pruned = scores[tasks.DENSE], scores[tasks.PRUNED]
    is_share = metric.startswith(("acc", "exact_match"))
    better = {True: "higher is better", False: "lower is better", None: ""}[dense.higher_is_better]
    term = ", ".join(part for part in (metric, "" if filter_name == "none" else filter_name, better) if part)
    shown = [_value(score, is_share) for score in (dense, pruned)]
    return row(task, term, *shown, _difference(dense, pruned, is_share))


def _value(score: ta.TaskScore, is_share: bool) -> str:
    if score.value is None:
        return "–"
    show = (lambda value: numbers.percent(value, 1)) if is_share else numbers.figure
    error = "" if score.standard_error is None else f" <small>± {show(score.standard_error)}</small>"
    return f"{show(score.value)}{error}"


def _difference(dense: ta.TaskScore, pruned: ta.TaskScore, is_share: bool) -> str:
    """Points for shares, a factor otherwise; nothing is claimed within two standard errors of the difference."""
    if dense.value is None or pruned.value is None:
        return ""
    errors = [score.standard_error for score in (dense, pruned)]
    if None not in errors and abs(pruned.value - dense.value) < 2 * sum(error**2 for error in errors) ** 0.5:
        return NOISE
    if is_share:
        return numbers.points(pruned.value - dense.value)
    return numbers.factor(dense.value, pruned.value)
