"""The short way: name a size and a time, and have the rest chosen."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.format import numbers
from ui.server import limits
from ui.state.session import Session
from ui.work.compression import Expected


@dataclass(frozen=True)
class GoalPanel:
    size: gr.Slider
    minutes: gr.Number
    differ: gr.Checkbox
    expected: gr.HTML
    go: gr.Button

    @property
    def inputs(self) -> list:
        return [self.size, self.minutes, self.differ]


def build(session: Session) -> GoalPanel:
    gr.HTML(
        "<h2><span>3</span> Goal</h2><p>Name a size and a time: what goes, how it is refitted and taught by the dense "
        "model is chosen for you, on the text that was scored. Or choose by hand.</p>",
        js_on_load=None,
    )
    with gr.Row(elem_classes="bottom"):
        size = gr.Slider(
            1, 90, value=session.options.smaller_by, step=1, label="Smaller by (%)",
            info="Of all parameters, embeddings included", buttons=[],
            elem_id="goal-size",
        )  # fmt: skip
        minutes = gr.Number(
            session.options.minutes, label="In at most (minutes)",
            info=f"More gives a better model; up to {limits.MAX_MINUTES}",
            elem_id="goal-minutes", min_width=170,
        )  # fmt: skip
        differ = gr.Checkbox(
            session.options.differ,
            label="Layers may differ",
            info="Loses less; GGUF and this project hold it as it is, stock transformers padded",
            elem_id="goal-differ",
        )
    with gr.Row(elem_classes="bottom"):
        expected = gr.HTML("", elem_id="goal-expected", js_on_load=None)
        go = gr.Button("Go", elem_id="goal-go", size="sm", scale=0, min_width=140)
    return GoalPanel(size, minutes, differ, expected, go)


PAINTS: dict = {}


def expected_line(expected: Expected) -> str:
    """What pressing the button will do, and how long each part should take."""
    steps = "" if expected.recipe is None else f" Then {escape(expected.recipe.words)}; beside it the measuring."
    groups = f"{expected.groups} head group" + ("" if expected.groups == "1" else "s")
    return (
        f'<p class="estimate">{numbers.count(expected.parameters)} parameters: {groups} and '
        f"{expected.channels:,} channels in a layer on average.{steps}</p>"
    )
