"""One limit instead of two sparsities: at most so much of the dense model's parameters, memory or KV cache."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import transact as ta
from ui.format import numbers
from ui.state import slider_steps
from ui.state.choice import Budget
from ui.state.session import Choice

_LONGEST_CONTEXT = 4096
"""Longest sequence whose KV cache counts as memory; models that take more are seldom given more here."""
STEP = 0.01


@dataclass(frozen=True)
class BudgetKind:
    """A quantity that can be limited. `amount` of a spec; the `target` that keeps within an amount."""

    label: str
    explanation: str
    amount: Callable[[ta.ModelSpec], int]
    target: Callable[[ta.ModelSpec, int], ta.PruningTarget]
    show: Callable[[float], str]


def context(spec: ta.ModelSpec) -> int:
    """Tokens in the KV cache that counts as memory."""
    return min(spec.max_position_embeddings, _LONGEST_CONTEXT)


def _memory(spec: ta.ModelSpec) -> int:
    return 2 * spec.num_parameters + spec.kv_bytes(context(spec))


BUDGETS: dict[str, BudgetKind] = {
    "parameters": BudgetKind(
        "Parameters",
        "Parameters kept, embeddings included",
        lambda spec: spec.num_parameters,
        lambda spec, amount: ta.PruningTarget.from_parameters(spec, amount),
        numbers.count,
    ),
    "memory": BudgetKind(
        "Memory",
        "Weights and the KV cache of one full context, 2 bytes a value",
        _memory,
        lambda spec, amount: ta.PruningTarget.from_memory(spec, amount, context=context(spec)),
        numbers.size,
    ),
    "kv": BudgetKind(
        "KV cache",
        "KV cache per token; channels go in the same proportion as heads",
        lambda spec: spec.kv_bytes_per_token(),
        lambda spec, amount: ta.PruningTarget.from_kv_bytes(spec, amount),
        numbers.size,
    ),
}


def target(spec: ta.ModelSpec, budget: Budget) -> ta.PruningTarget:
    """The largest result within the budget. Raises `InvalidTarget` below what can be reached."""
    kind = BUDGETS[budget.kind]
    return kind.target(spec, round(kind.amount(spec) * budget.share))


def least_share(spec: ta.ModelSpec, kind: str) -> float:
    """The share that one head group and one channel a layer come to, rounded up to a step of the slider."""
    bare = spec.with_layers(tuple(ta.LayerShape(layer.group_size, 1, 1) for layer in spec.layers))
    amount = BUDGETS[kind].amount
    return min(1.0, math.ceil(amount(bare) / amount(spec) / STEP) * STEP)


def with_budget(spec: ta.ModelSpec, choice: Choice, budget: Budget) -> Choice:
    """The choice under a budget, with both sliders where it puts them."""
    shape = target(spec, budget).per_layer(spec)[0]
    groups, channels = spec.layers[0].num_key_value_heads, spec.layers[0].intermediate_size
    return replace(
        choice,
        budget=budget,
        keep_head_groups=None,
        keep_channels=None,
        granularity="head_groups",
        attention=slider_steps.nearest_attention(spec, 1 - shape.num_key_value_heads / groups),
        mlp=min(round(1 - shape.intermediate_size / channels, 2), 1 - slider_steps.MLP_STEP),
    )


def current_share(spec: ta.ModelSpec, plan: ta.PruningPlan | None, kind: str) -> float:
    """What the plan in view comes to, so that the slider starts where the others stand."""
    if plan is None:
        return 1.0
    amount = BUDGETS[kind].amount
    share = math.ceil(amount(plan.spec) / amount(spec) / STEP - 1e-9) * STEP
    return round(min(1.0, max(share, least_share(spec, kind))), 2)
