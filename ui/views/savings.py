"""The savings strip: what the plan in view would take off, before → after."""

from dataclasses import dataclass
from html import escape

import transact as ta
from ui.format import numbers


@dataclass(frozen=True)
class Saving:
    """One quantity before and after; `label` in plain words, `term` the field's word, `protocol` how it is counted."""

    label: str
    term: str
    protocol: str
    before: str
    after: str
    removed: float


def savings(plan: ta.PruningPlan) -> tuple[Saving, ...]:
    """Parameters, file size, FLOPs and KV bytes per token of the plan's two specs.

    Where windows end the growth of the cache, its bytes at the full context say what a byte a token would not.
    """
    summary = plan.summary()
    before, after = summary["before"], summary["after"]
    cache = ("Memory/token", "KV cache", "KV cache, 2 bytes a value", "kv_bytes_per_token", numbers.size)
    if any(window is not None for window in plan.dense_spec.windows):
        tokens = plan.dense_spec.max_position_embeddings
        term = f"KV cache of {tokens:,} tokens"
        cache = ("Memory", term, f"{term}, 2 bytes a value", "kv_bytes_full_context", numbers.size)
    rows = (
        ("Weights", "parameters", "parameters, embeddings included", "parameters", numbers.count),
        ("File", "2 bytes a weight", "checkpoint, 2 bytes a weight", "checkpoint_bytes", numbers.size),
        ("Work/token", "FLOPs", "FLOPs at a context of 512", "flops_per_token", numbers.count),
        cache,
    )
    return tuple(
        Saving(label, term, protocol, show(before[key]), show(after[key]), 1 - after[key] / before[key])
        for label, term, protocol, key, show in rows
    )


def strip(plan: ta.PruningPlan | None) -> str:
    """The strip as HTML; without a plan it says what to do."""
    if plan is None:
        return '<div class="strip empty">Score the model to see what removing a part of it would save.</div>'
    cells = "".join(
        f'<div class="saving" title="{escape(saving.protocol)}"><span class="label">{escape(saving.label)} '
        f"<small>{escape(saving.term)}</small></span><em>{numbers.change(1, 1 - saving.removed)}</em>"
        f'<span class="figures"><b>{saving.before}</b><i aria-label="becomes">→</i><b>{saving.after}</b></span></div>'
        for saving in savings(plan)
    )
    return f'<div class="strip">{cells}</div>'
