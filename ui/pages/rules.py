"""Step 4, continued: one limit in place of both sliders, how it is shared among layers, what goes of attention."""

from dataclasses import dataclass

import gradio as gr

from ui.state import budgets, slider_steps
from ui.state.session import Session

BY_HAND = "manual"
_ALLOCATIONS = [
    ("The same in every layer (uniform)", "uniform"),
    ("More where less is lost (global)", "global"),
    ("Heads and channels under one threshold (flap)", "flap"),
    ("By hand, layer by layer (manual)", BY_HAND),
]
SLIDERS = "sliders"
_KINDS = [("Both sliders", SLIDERS), *((kind.label, name) for name, kind in budgets.BUDGETS.items())]

_GRANULARITIES = [
    ("Whole head groups", "head_groups"),
    ("The same number of heads in every group", "heads"),
    ("Dimensions inside every head", "head_dims"),
]


@dataclass(frozen=True)
class RulesPanel:
    kind: gr.Radio
    share: gr.Slider
    allocation: gr.Radio
    granularity: gr.Radio


def build(session: Session) -> RulesPanel:
    gr.HTML("<h2><span>4</span> How to choose</h2>", js_on_load=None)
    return RulesPanel(*_limit(), *_shapes(session))


def paint(panel: RulesPanel, session: Session) -> dict:
    """The controls where the choice has them."""
    choice = session.choice
    return {
        panel.kind: SLIDERS if choice.budget is None else choice.budget.kind,
        panel.share: share_update(session),
        panel.allocation: _allocation(session),
        panel.granularity: gr.update(**_granularity(session)),
    }


def paint_allocation(panel: RulesPanel, session: Session) -> dict:
    """What a slider may change: counts by hand give way to it."""
    return {panel.allocation: _allocation(session)}


PAINTS = {"all": paint, "controls": paint, "marks": paint_allocation, "plan": paint}


def _limit() -> tuple[gr.Radio, gr.Slider]:
    """What is limited, and to which share of the dense model."""
    kind = gr.Radio(
        _KINDS,
        value=SLIDERS,
        label="Set how much to keep by",
        info="One limit sets both sliders in proportion",
        elem_id="target-kind",
    )
    share = gr.Slider(
        minimum=0, maximum=1, step=budgets.STEP, value=1, visible=False, elem_id="target-share", buttons=[],
        label="Keep at most (share of the dense model)",
    )  # fmt: skip
    return kind, share


def _shapes(session: Session) -> tuple[gr.Radio, gr.Radio]:
    """How what goes is shared among the layers, and what it is of attention."""
    allocation = gr.Radio(
        _ALLOCATIONS,
        value=_allocation(session),
        label="How much each layer keeps (allocation)",
        info="Only layers of one size are compact in every other program",
        elem_id="allocation",
    )
    granularity = gr.Radio(
        **_granularity(session),
        label="What goes of attention (granularity)",
        elem_id="granularity",
    )
    return allocation, granularity


def _allocation(session: Session) -> str:
    return BY_HAND if session.choice.by_hand else session.choice.allocation


def share_update(session: Session) -> dict:
    """The one slider of a budget; hidden where both sliders decide."""
    budget = session.choice.budget
    if budget is None or session.spec is None:
        return gr.update(visible=False)
    kind = budgets.BUDGETS[budget.kind]
    return gr.update(
        visible=True, value=budget.share, minimum=budgets.least_share(session.spec, budget.kind),
        info=f"{kind.explanation}: at most {kind.show(kind.amount(session.spec) * budget.share)}",
    )  # fmt: skip


def _granularity(session: Session) -> dict:
    """What the model allows: several heads to a group, and a family whose heads can be narrower."""
    spec = session.spec
    grouped = spec is not None and spec.group_size > 1
    whole = None if spec is None else spec.layout.no_head_dim_pruning_reason
    narrower = spec is not None and slider_steps.may_narrow(spec, streamed=session.streamed)
    possible = {"head_groups": True, "heads": grouped, "head_dims": narrower}
    possible[session.choice.granularity] = True  # a link can ask for anything; the plan says what is wrong with it
    info = (
        "A group is a key/value head with its query heads; its keys and values are what the KV cache holds"
        if grouped
        else "Here every head has keys and values of its own"
    )
    return {
        "choices": [(label, name) for label, name in _GRANULARITIES if possible[name]],
        "value": session.choice.granularity,
        "interactive": sum(possible.values()) > 1,
        "info": info if whole is None else f"{info}. {spec.layout.label} keeps heads whole: {whole}",
    }
