"""Which slider positions are legal: whole head groups, heads or RoPE pairs, and at least one of everything left."""

import math
from dataclasses import replace

import transact as ta
from ui.server import limits
from ui.state.session import Choice

MLP_STEP = 0.01
MANY_GROUPS = 8
_FIRST_MLP = 0.2


def attention_units(spec: ta.ModelSpec, granularity: str) -> int:
    """What the attention slider counts: a layer's head groups, the heads of a group, or the RoPE pairs of a head.

    Raises `WrongInput` for another granularity.
    """
    units = {
        "head_groups": spec.layers[0].num_key_value_heads,
        "heads": spec.group_size,
        "head_dims": spec.query_key_dim // 2,
    }
    return units[limits.one_of("granularity", granularity, units)]


def attention_step(units: int) -> float:
    """1 / units, rounded down so that k steps never ask for more than k of them, nor for a whole one less.

    To three decimals, as people read, or to as many as that takes: k steps fall short of k units by less than
    units · (units − 1) · 10^-decimals of one.
    """
    scale = 10 ** max(3, len(str(units * (units - 1))))
    return int(scale / units) / scale


def nearest_attention(spec: ta.ModelSpec, sparsity: float, granularity: str = "head_groups") -> float:
    """The legal attention sparsity nearest to what was asked for."""
    units = attention_units(spec, granularity)
    removed = min(units - 1, max(0, int(sparsity * units + 0.5)))  # half a unit counts as one
    return round(removed * attention_step(units), 6)


def gentler(spec: ta.ModelSpec, granularity: str, *, streamed: bool) -> str | None:
    """A granularity in which attention moves in smaller steps; None where there is none, or the steps are small."""
    if attention_units(spec, granularity) >= MANY_GROUPS:
        return None
    order = tuple(ta.GRANULARITIES)
    possible = {"heads": spec.group_size > 1, "head_dims": may_narrow(spec, streamed=streamed)}
    return next((finer for finer in order[order.index(granularity) + 1 :] if possible[finer]), None)


def may_narrow(spec: ta.ModelSpec, *, streamed: bool) -> bool:
    """Whether dimensions inside heads can go."""
    return spec.layout.no_head_dim_pruning_reason is None and not streamed


def with_room(spec: ta.ModelSpec, choice: Choice) -> Choice:
    """The choice with sliders, or counts by hand, that leave room for all units that are locked to go.

    A limit gives way where it would not.
    """
    groups, channels = (_per_layer(spec, units) for units in (choice.locks.remove_head_groups,
                                                              choice.locks.remove_channels))  # fmt: skip
    if choice.by_hand:
        return replace(
            choice,
            keep_head_groups=_at_most(
                choice.keep_head_groups, groups, [one.num_key_value_heads for one in spec.layers]
            ),
            keep_channels=_at_most(choice.keep_channels, channels, [one.intermediate_size for one in spec.layers]),
        )
    raised = choice
    units = attention_units(spec, choice.granularity)
    if choice.granularity == Choice.granularity:
        needed = round(min(max(groups), units - 1) * attention_step(units), 6)
        raised = replace(raised, attention=max(choice.attention, needed))
    widths = [one.intermediate_size for one in spec.layers]
    share = max(going / width for going, width in zip(channels, widths, strict=True))
    needed = min(math.ceil(share / MLP_STEP - 1e-9) * MLP_STEP, 1 - MLP_STEP)
    raised = replace(raised, mlp=max(choice.mlp, round(needed, 2)))
    return raised if raised == choice else replace(raised, budget=None)


def _per_layer(spec: ta.ModelSpec, units: frozenset[tuple[int, int]]) -> list[int]:
    """How many of the units are in each layer."""
    return [sum(layer == index for layer, _ in units) for index in range(spec.num_hidden_layers)]


def _at_most(kept: tuple[int, ...], going: list[int], available: list[int]) -> tuple[int, ...]:
    return tuple(max(1, min(count, all - gone)) for count, gone, all in zip(kept, going, available, strict=True))


def start(spec: ta.ModelSpec) -> Choice:
    """Where the controls stand when a model comes in: a fifth of the channels, and of attention one head group where
    that is an eighth of it or less; where there are few groups each is dear.
    """
    units = attention_units(spec, Choice.granularity)
    attention = nearest_attention(spec, 1 / units) if units >= MANY_GROUPS else 0.0
    return replace(Choice(), attention=attention, mlp=_FIRST_MLP)
