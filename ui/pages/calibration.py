"""Step 2, calibration text: what is run through the model to see which of its parts are used."""

from dataclasses import dataclass, fields
from html import escape

import gradio as gr

import transact as ta
from ui.format import numbers
from ui.state.options import DATASET, PASTE, UPLOAD
from ui.state.session import Sampling, Scored, Session
from ui.text_sources import own_text_fields, text_source
from ui.text_sources.text_source import TextSource
from ui.work.scoring import Run

SOURCES = [
    *((label, name) for name, label in text_source.SAMPLES.items()),
    ("Paste your own", PASTE),
    ("Upload a file", UPLOAD),
    ("A Hugging Face dataset", DATASET),
]
_PREVIEW_TEXTS = 3
HELD_OUT_PERCENT = 10
_TOKENS_PER_CHANNEL = 4
"""Below that, least squares has hardly more equations than unknowns."""


@dataclass(frozen=True)
class CalibrationForm:
    """What stands in the fields, as the page sends it; nothing is checked yet."""

    source: str
    text: str | None
    file: str | None
    column: str | None
    dataset: str | None
    config: str | None
    split: str | None
    dataset_column: str | None
    num_samples: float | None
    seq_len: float | None
    seed: float | None
    taylor: bool | None
    held_out: float | None


@dataclass(frozen=True)
class CalibrationPanel:
    source: gr.Dropdown
    text: gr.Textbox
    file: gr.File
    column: gr.Dropdown
    dataset_fields: gr.Column
    dataset: gr.Textbox
    config: gr.Textbox
    split: gr.Textbox
    dataset_column: gr.Textbox
    num_samples: gr.Number
    seq_len: gr.Number
    seed: gr.Number
    taylor: gr.Checkbox
    held_out: gr.Number
    estimate: gr.HTML
    score: gr.Button

    @property
    def inputs(self) -> list:
        """What a run depends on, in the order of `CalibrationForm`."""
        return [getattr(self, field.name) for field in fields(CalibrationForm)]


def build(session: Session) -> CalibrationPanel:
    sampling = Sampling()
    gr.HTML("<h2><span>2</span> Calibration text</h2>", js_on_load=None)
    source = gr.Dropdown(
        SOURCES,
        value="mixed",
        label="Text to run through the model",
        info="Heads and channels that this text uses score high",
        elem_id="calibration-source",
    )
    text = gr.Textbox(
        preview("mixed"),
        label="Text",
        lines=3,
        max_lines=6,
        elem_id="calibration-text",
        placeholder="Paste or type your text here, then press Score",
        info="Type here to use your own; a blank line starts a new sequence",
    )
    own = own_text_fields.build("calibration", "dataset", split="train")
    with gr.Row(elem_classes="tight"):
        num_samples = gr.Number(sampling.num_samples, label="Sequences", min_width=80)
        seq_len = gr.Number(sampling.seq_len, label="Tokens each", min_width=80)
        seed = gr.Number(sampling.seed, label="Seed", min_width=60)
    taylor = gr.Checkbox(
        sampling.taylor,
        label="Also gradients (Taylor metric)",
        elem_id="calibration-taylor",
    )
    held_out = gr.Number(
        HELD_OUT_PERCENT, label="Hold out for measuring (%)", visible=False, elem_id="calibration-held-out",
        info="The end of your text, which then does not score; 0 for none",
    )  # fmt: skip
    estimate = gr.HTML(scored_line(session), elem_id="estimate", js_on_load=None)
    score = gr.Button("Score", elem_id="score-button", variant="primary")
    return CalibrationPanel(
        source, text, own.file, own.column, own.dataset_fields, own.dataset, own.config, own.split, own.dataset_column,
        num_samples, seq_len, seed,
        taylor, held_out, estimate, score,
    )  # fmt: skip


def paint(panel: CalibrationPanel, session: Session) -> dict:
    return {panel.estimate: scored_line(session)}


PAINTS = {"all": paint, "plan": paint}


def preview(name: str) -> str:
    """The beginning of a bundled sample, so that one sees what it is."""
    try:
        chosen = text_source.sample(name).texts[:_PREVIEW_TEXTS]
    except OSError:
        return ""
    return "\n\n".join(text if len(text) < 300 else text[:300] + " …" for text in chosen)


def is_preview(text: str) -> bool:
    """Whether the box still shows a bundled sample and not the visitor's own text."""
    return any(text.strip() == preview(name).strip() for name in text_source.SAMPLES)


def scored_line(session: Session) -> str:
    """What the scores in view were made from."""
    if session.scored is None:
        return '<p class="estimate">Not scored yet.</p>'
    scored, record = session.scored, session.scored.statistics.calibration
    when = f"in {scored.seconds:.1f} s" if scored.gallery is None else "before, for the gallery"
    return (
        f'<p class="estimate">Scored on <b>{escape(scored.text.name)}</b>: {record.amount} read'
        f"{held_out_words(scored)} {when}; {escape(record.protocol)}</p>"
        f"{too_little(scored.num_tokens, scored.spec)}"
    )


def held_out_words(scored: Scored) -> str:
    """How much did not score, so that it can measure; empty where all of the text did."""
    return f", {scored.held_out_tokens:,} held out for measuring" if scored.held_out_tokens else ""


def estimate_line(run: Run) -> str:
    """What a run would take, and what is to be known of the text before it does."""
    time = "" if run.seconds is None else f", about {numbers.duration(run.seconds)}"
    remarks = "".join(f"; {escape(note)}" for note in notes(run.text, run.notes))
    return f'<p class="estimate">A run reads {run.amount}{time}{remarks}</p>{too_little(run.tokens, run.spec)}'


def too_little(tokens: int, spec: ta.ModelSpec) -> str:
    """A warning as HTML where a text says little of so many channels; nothing where it is enough."""
    enough = _TOKENS_PER_CHANNEL * max(layer.intermediate_size for layer in spec.layers)
    if tokens >= enough:
        return ""
    return (
        f'<p class="estimate fair">That is little text for {enough // _TOKENS_PER_CHANNEL:,} channels a layer: with '
        f"{enough:,} tokens or more the choice and the repair can be trusted further.</p>"
    )


def notes(text: TextSource, of_tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Notes on a text: rows that were left out, then the notes on its tokens."""
    skipped = (f"{text.name}: rows without text, left out: {text.skipped:,}.",) if text.skipped else ()
    return (*skipped, *of_tokens)
