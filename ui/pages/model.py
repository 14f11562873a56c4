"""Step 1, the model: presets, any hub id or folder, and what loading it would take."""

import shlex
from dataclasses import dataclass
from html import escape

import gradio as gr

import transact as ta
from transact.models.loaded_model import DTYPES as LIBRARY_DTYPES
from ui.format import labels, numbers
from ui.server import limits
from ui.state.session import BUNDLED, ModelKey, Session
from ui.work import gallery

PRESETS = (
    ("Bundled model, ready at once", BUNDLED.source),
    ("SmolLM2 135M", "HuggingFaceTB/SmolLM2-135M"),
    ("SmolLM2 360M", "HuggingFaceTB/SmolLM2-360M"),
    ("GPT-2 124M", "openai-community/gpt2"),
    ("Pythia 160M", "EleutherAI/pythia-160m"),
    ("Qwen2.5 0.5B", "Qwen/Qwen2.5-0.5B"),
    ("Qwen3 0.6B", "Qwen/Qwen3-0.6B"),
    ("TinyLlama 1.1B", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"),
)
DTYPES = (
    ("Automatic", "auto"),
    ("32 bit (float32)", "float32"),
    ("16 bit (bfloat16)", "bfloat16"),
    ("16 bit (float16)", "float16"),
)
_EVERY_DTYPE = ("auto", *LIBRARY_DTYPES)
"""With those that only links ask for."""


@dataclass(frozen=True)
class ModelPanel:
    select: gr.Dropdown
    revision: gr.Textbox
    dtype: gr.Dropdown
    card: gr.HTML
    load: gr.Button
    weights: gr.Button


def build(session: Session) -> ModelPanel:
    gr.HTML("<h2><span>1</span> Model</h2>", js_on_load=None)
    select = gr.Dropdown(
        presets(),
        value=session.key.source,
        allow_custom_value=True,
        label="Model",
        info="Choose one, or type a Hugging Face id or a folder",
        elem_id="model-select",
    )
    with gr.Accordion("Revision and precision", open=False):
        revision = gr.Textbox(label="Revision", placeholder="the latest", max_lines=1)
        dtype = gr.Dropdown(list(DTYPES), value="auto", label="Numbers in memory (dtype)")
    card = gr.HTML(loaded_card(session), elem_id="model-card", js_on_load=None)
    with gr.Row(elem_classes="tight"):
        load = gr.Button("Load", elem_id="load-button", min_width=80)
        weights = gr.Button(
            "Load the weights", elem_id="weights-button", visible=not session.key.has_weights, min_width=140
        )
    return ModelPanel(select, revision, dtype, card, load, weights)


def presets() -> list[tuple[str, str]]:
    """What the menu offers: the bundled model, the gallery's, and some of the hub."""
    facts = [(f"{name} (gallery)", gallery.key_of(name).source) for name in gallery.names()]
    return [PRESETS[0], *facts, *PRESETS[1:]]


def paint(panel: ModelPanel, session: Session) -> dict:
    return {panel.card: loaded_card(session), panel.weights: gr.update(visible=not session.key.has_weights)}


PAINTS = {"all": paint}


def key_of(source: str | None, revision: str | None, dtype: str) -> ModelKey:
    """The model that the controls name. Raises `WrongInput` for what is no name."""
    return ModelKey(
        limits.name("“Model”", source or ""),
        limits.name("“Revision”", revision or "") or None,
        limits.one_of("dtype", dtype, _EVERY_DTYPE),
    )


def loaded_card(session: Session) -> str:
    """The card of the model in memory, or of one that is read from its files."""
    if session.spec is None:
        return '<div class="card"><p class="verdict">No model is loaded. Choose one and press Load.</p></div>'
    if session.scored is not None and session.scored.gallery is not None:
        return gallery_card(session.scored.gallery, "Open without its weights: look and plan, load the weights to cut")
    if session.streamed:
        return _card(session.spec, "Larger than memory: its layers are read from its files, one at a time", "good", ())
    return _card(session.spec, "In memory", "good", ())


def preflight_card(preflight: ta.Preflight, *, streamed: bool = False) -> str:
    """What loading would take, known from the configuration alone; `streamed`: whether it passes layer by layer."""
    needed = ("Memory needed", "", f"{numbers.size(preflight.required_bytes)} ({preflight.dtype})")
    free = ("Memory free", "", numbers.size(preflight.available_bytes))
    if preflight.fits:
        return _card(preflight.spec, "Can be pruned and fits; press Load", "plain", (needed, free))
    if preflight.streamed_bytes > preflight.available_bytes:
        return _card(preflight.spec, "Does not fit into memory; choose a smaller one", "wrong", (needed, free))
    by_layer = ("Layer by layer", "from its files", f"about {numbers.size(preflight.streamed_bytes)}")
    if streamed:
        verdict = "Does not fit into memory, so it passes layer by layer from its files; press Load"
        return _card(preflight.spec, verdict, "plain", (needed, free, by_layer), _WHAT_STREAMING_MEANS)
    verdict = "Does not fit into memory here; it can be cut layer by layer from its files"
    return _card(preflight.spec, verdict, "wrong", (needed, free, by_layer), _streamed_way(preflight))


def gallery_card(model: ta.GalleryModel, verdict: str) -> str:
    """The card of a model of the gallery: its shapes, and where its numbers come from."""
    scored, sweep, origin = model.calibration, model.sweep, model.origin
    sentences = (
        f"Scored on {scored.name}: {scored.amount}, computed in {model.dtype}.",
        f"Perplexity on {sweep.text}: {sweep.tokens:,} tokens in windows of {sweep.window:,}; {sweep.protocol}. "
        f"Cut by {labels.metric(sweep.metric)}, {labels.repair(sweep.repair)}: {sweep.split}.",
        f"Weights: {origin.weights}. Licence: {origin.licence}.",
        f"Made with {', '.join(f'{name} {version}' for name, version in model.versions.items())}.",
    )
    below = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    about = f"<details><summary>Where the numbers come from</summary>{below}</details>"
    return _card(model.spec, verdict, "plain", (), about)


_WHAT_STREAMING_MEANS = (
    "<details><summary>What that means</summary><p>Scoring, planning, trying behind masks, cutting with repair and "
    "measuring work as ever, each as a pass over all files, so they take longer, and a stopped one goes on where it "
    "was. Writing text, the redundancy map, gradients and training need the whole model and are refused.</p></details>"
)


def _streamed_way(preflight: ta.Preflight) -> str:
    """What to run where the page cannot: it needs all of the model in memory, these do not."""
    revision = preflight.revision
    shell = (
        f"python -m transact prune --model {shlex.quote(preflight.source)}"
        f"{f' --revision {revision}' if revision else ''} --stream \\\n"
        "    --calibration texts.jsonl --attention-sparsity 0.25 --mlp-sparsity 0.5 --output pruned-model"
    )
    named = f"{preflight.source!r}{f', revision={revision!r}' if revision else ''}"
    python = (
        f"loaded = ta.load_streamed({named})\n"
        "statistics = ta.stream_observe(loaded, ta.CalibrationSet.from_texts(texts, loaded.tokenizer))\n"
        "target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)\n"
        "plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target)\n"
        'ta.stream_prune(loaded, plan, "pruned-model")'
    )
    return (
        "<details><summary>How to cut it</summary>"
        f"<p>In a shell:</p><pre>{escape(shell)}</pre><p>In Python:</p><pre>{escape(python)}</pre></details>"
    )


def refused_card(reason: str) -> str:
    """Why the named model cannot be used."""
    return f'<div class="card"><p class="verdict wrong">{escape(reason)}</p></div>'


def _card(spec: ta.ModelSpec, verdict: str, mood: str, extra: tuple[tuple[str, str, str], ...], below: str = "") -> str:
    layer = spec.layers[0]
    shape = (
        f"{spec.num_hidden_layers} layers of {layer.num_attention_heads} heads and {layer.intermediate_size:,} channels"
    )
    rows = (
        ("Family", "", spec.family),
        ("Weights", "parameters", numbers.count(spec.num_parameters)),
        ("Layers", "", str(spec.num_hidden_layers)),
        ("Heads", f"of {spec.head_dim} numbers", str(layer.num_attention_heads)),
        ("Head groups", "key/value heads", str(layer.num_key_value_heads)),
        ("Channels", "MLP, per layer", f"{layer.intermediate_size:,}"),
        ("Context", "tokens", f"{spec.max_position_embeddings:,}"),
        *extra,
    )
    cells = "".join(
        f"<dt>{escape(name)} <small>{escape(term)}</small></dt><dd>{escape(value)}</dd>" for name, term, value in rows
    )
    return (
        f'<div class="card"><p class="verdict {mood}">{escape(verdict)}</p><details{" open" if extra else ""}>'
        f"<summary>{escape(shape)}</summary><dl>{cells}</dl></details>{below}</div>"
    )
