"""The endpoints for scripts: the page's steps with JSON in and out, a session per client.

They run the same functions on the same values as the page does, so the numbers are the page's.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import gradio as gr
import numpy as np

import transact as ta
from ui.context import AppContext
from ui.events import downloads
from ui.events.load_and_score import loaded_key
from ui.events.panels import HEAVY, LIGHT
from ui.events.runner import bound
from ui.pages.takeaway import GGUF_TYPE
from ui.server import error_messages, limits
from ui.state import plan_of_choice
from ui.state.session import BUNDLED, ModelKey, Sampling, Session
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource
from ui.views.downloads import model_stem
from ui.views.python_code import Recipe, code
from ui.work import gallery, measuring, pruning, scoring
from ui.work.jobs import FILES

EXPORT_KINDS = ("checkpoint", "plan", "gguf")

T = TypeVar("T")


def connect(context: AppContext) -> None:
    """Offer every endpoint; must be called inside the page's Blocks."""
    for endpoint, wiring in (
        (load_model, HEAVY), (score, HEAVY), (plan, LIGHT), (prune, HEAVY), (evaluate, HEAVY), (generate, HEAVY),
    ):  # fmt: skip
        gr.api(bound(_in_one_sentence(endpoint), context), **wiring)
    # an endpoint that returns a file needs a component that carries one
    kind = gr.Textbox(label="kind", visible=False)
    file = gr.File(label="file", visible=False)
    function = bound(_in_one_sentence(export), context)
    kind.submit(function, kind, file, api_name="export", api_visibility="public", **HEAVY)


def load_model(context: AppContext, source: str, request: gr.Request) -> dict:
    """Load the bundled model ("bundled"), a Hugging Face id or a local folder; returns its sizes.

    "gallery:NAME" opens a model of the gallery without its weights, for plans alone.
    """
    owner, key = context.client(request), ModelKey(limits.name("source", source))
    if not key.has_weights:
        facts = gallery.scored(key)
        context.sessions.update(owner, lambda old: scoring.opened_from_gallery(old, facts))
        return {"source": key.source, "fingerprint": facts.gallery.fingerprint, **shape_facts(facts.spec)}
    context.jobs.finish(owner, "Fetching", lambda watch: context.registry.fetch(key, watch), kind="fetch", line=FILES)
    loaded = context.jobs.finish(
        owner, "Loading", lambda watch: scoring.load(context.registry, key, watch), kind="load"
    )
    scored = context.first_scored if key == BUNDLED else None
    context.sessions.update(owner, lambda old: scoring.opened(old, key, loaded, scored))
    return model_facts(loaded)


def score(
    context: AppContext, text: str, metric: str = "transact", num_samples: int = 128, seq_len: int = 256,
    request: gr.Request = None,
) -> dict:  # fmt: skip
    """Score heads and channels on a text, or on a bundled sample by its name; scores per layer."""
    owner = context.client(request)
    limits.one_of("metric", metric, ta.METRICS)
    sampling = Sampling(
        limits.counted("num_samples", "num_samples", num_samples),
        limits.counted("seq_len", "seq_len", seq_len),
        taylor=ta.METRICS[metric].needs_gradients,
    )
    limits.tokens(sampling.num_samples, sampling.seq_len)
    source = _text(text, text_source.sample, sampling.seq_len)
    key = loaded_key(context.sessions.get(owner), context.registry)
    scored = context.jobs.finish(
        owner,
        "Scoring",
        lambda watch: scoring.score(context.registry, key, source, sampling, watch),
        kind="score",
        line=context.line_of(owner),
    )

    def change(old: Session) -> Session:
        return plan_of_choice.chosen(plan_of_choice.rescored(old, scored), replace(old.choice, metric=metric))

    context.sessions.update(owner, change)
    return score_facts(scored.scores[metric], scored)


def plan(
    context: AppContext, attention_sparsity: float, mlp_sparsity: float, allocation: str = "uniform",
    request: gr.Request = None,
) -> dict:  # fmt: skip
    """Plan what to remove; returns the sizes before and after."""
    owner = context.client(request)
    session = context.sessions.get(owner)
    session.need_scored()
    limits.one_of("allocation", allocation, ta.ALLOCATIONS)
    target = ta.PruningTarget.from_sparsity(
        session.spec,
        attention=limits.share_removed("attention", attention_sparsity),
        mlp=limits.share_removed("MLP", mlp_sparsity),
    )

    def change(old: Session) -> Session:
        choice = replace(
            old.choice, attention=target_share(target, "attention_sparsity"), mlp=target_share(target, "mlp_sparsity"),
            allocation=allocation, budget=None, granularity="head_groups", keep_head_groups=None, keep_channels=None,
        )  # fmt: skip
        return plan_of_choice.chosen(old, choice)

    return context.sessions.update(owner, change).plan.summary()


def prune(context: AppContext, repair: str = "none", request: gr.Request = None) -> dict:
    """Cut as planned; returns the plan's summary, the result's number and the lines that reproduce it.

    As on the page, with the repair "best" what goes is searched for: as much as planned, and locks hold.
    """
    owner = context.client(request)
    session = context.sessions.get(owner)
    session.need_plan()
    limits.one_of("repair", repair, ta.COMPENSATIONS)
    result = context.jobs.finish(
        owner, "Pruning",
        lambda watch: pruning.cut(context.registry, session, repair, watch, search=True), kind="prune",
        line=context.line_of(owner),
    )  # fmt: skip
    context.sessions.update(owner, lambda old: old.with_result(result))
    return {"result": result.number, **result.plan.summary(), "code": code(Recipe.of_result(result))}


def evaluate(context: AppContext, text: str, request: gr.Request = None) -> dict:
    """Measure the last result on a text, or on a bundled evaluation text by its name."""
    owner = context.client(request)
    result = context.sessions.get(owner).need_result()
    source = _text(text, text_source.evaluation_sample, text_source.EVALUATION_TOKENS)
    measured = context.jobs.finish(
        owner, "Measuring", lambda watch: measuring.measure(
            context.registry, owner, result, source, watch, with_probes=result.scored.key == BUNDLED
        ), kind="evaluate", line=context.line_of(owner),
    )  # fmt: skip
    context.sessions.update(owner, lambda old: old.with_result(measured))
    probes = [{"kind": kind, "dense": before, "pruned": after} for kind, before, after in measured.probes]
    return {**measured.report.to_dict(), "probes": probes}


def generate(context: AppContext, prompt: str, request: gr.Request = None) -> dict:
    """Continue a prompt greedily with the dense and, where there is one, the pruned model."""
    owner = context.client(request)
    session = context.sessions.get(owner)
    limits.text("prompt", prompt, limits.MAX_PROMPT_CHARACTERS)
    dense, pruned = context.jobs.finish(
        owner, "Writing", lambda watch: measuring.generate(context.registry, session, prompt, watch), kind="generate",
        line=context.line_of(owner),
    )  # fmt: skip
    return {"prompt": prompt, "dense": dense, "pruned": pruned}


def export(context: AppContext, kind: str, request: gr.Request) -> str:
    """A file of the last result: its checkpoint as a zip, a float16 GGUF file, or its plan."""
    owner = context.client(request)
    limits.one_of("export", kind, EXPORT_KINDS)
    session = context.sessions.get(owner)
    if kind == "plan":
        return str(context.exports.plan(owner, model_stem(session.key), session.need_plan()))
    result = session.need_result()

    def work(watch):
        if kind == "gguf":
            return downloads.gguf(context, owner, result, watch, file_type=GGUF_TYPE)
        return downloads.checkpoint(context, owner, result, watch)

    file, _ = context.jobs.finish(owner, "Writing the file", work, kind=f"export {kind}", line=context.line_of(owner))
    return str(file)


def model_facts(loaded: ta.LoadedModel) -> dict:
    """What the model card shows."""
    return {
        "source": loaded.source,
        "revision": loaded.revision,
        "fingerprint": loaded.fingerprint,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "streamed": loaded.is_streamed,
        **shape_facts(loaded.spec),
    }


def shape_facts(spec: ta.ModelSpec) -> dict:
    """The sizes of a model."""
    return {
        "family": spec.family,
        "parameters": spec.num_parameters,
        "num_hidden_layers": spec.num_hidden_layers,
        "hidden_size": spec.hidden_size,
        "head_dim": spec.head_dim,
        "vocab_size": spec.vocab_size,
        "context_length": spec.max_position_embeddings,
        "layers": [
            {
                "num_attention_heads": layer.num_attention_heads,
                "num_key_value_heads": layer.num_key_value_heads,
                "intermediate_size": layer.intermediate_size,
            }
            for layer in spec.layers
        ],
    }


def score_facts(scores: ta.ImportanceScores, scored) -> dict:
    """Head and group scores of every layer, and of its channels the spread."""
    return {
        "metric": scores.metric,
        "calibration": scored.text.name,
        "num_samples": scored.num_samples,
        "num_tokens": scored.num_tokens,
        "available_tokens": scored.calibration.available_tokens,
        "protocol": scored.calibration.protocol,
        "notes": list(scored.calibration.notes),
        "seconds": scored.seconds,
        "layers": [
            {
                "heads": heads.tolist(),
                "head_groups": groups.tolist(),
                "channels": _spread(channels.numpy()),
            }
            for heads, groups, channels in zip(scores.heads, scores.head_groups, scores.mlp_channels, strict=True)
        ],
    }


def target_share(target: ta.PruningTarget, name: str) -> float:
    """The sparsity that a target was derived from."""
    return dict(target.requested)[name]


def _spread(channels: np.ndarray) -> dict[str, float]:
    low, middle, high = np.quantile(channels, (0.1, 0.5, 0.9))
    return {
        "count": len(channels),
        "mean": float(channels.mean()),
        "min": float(channels.min()),
        "p10": float(low),
        "median": float(middle),
        "p90": float(high),
        "max": float(channels.max()),
    }


def _text(text: str, named, seq_len: int) -> TextSource:
    """A bundled text by its name, or the text itself."""
    limits.text("text", text)
    return named(text.strip()) if text.strip() in text_source.SAMPLES else text_source.pasted(text, seq_len)


def _in_one_sentence(endpoint: Callable[..., T]) -> Callable[..., T]:
    """The endpoint, whose errors reach the client as one sentence."""

    @functools.wraps(endpoint)
    def answer(*values, **named):
        try:
            return endpoint(*values, **named)
        except ta.Cancelled:
            raise gr.Error("The run was stopped.", print_exception=False) from None
        except Exception as error:
            raise gr.Error(error_messages.sentence(error), print_exception=False) from None

    return answer
