"""Which slider positions are legal: whole head groups, heads or RoPE pairs, and at least one of everything left."""

from dataclasses import replace

import transact as ta
from ui.server import limits
from ui.state.session import Choice

MLP_STEP = 0.01
_MANY_GROUPS = 8
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


def start(spec: ta.ModelSpec) -> Choice:
    """Where the controls stand when a model comes in: a fifth of the channels, and of attention one head group where
    that is an eighth of it or less; where there are few groups each is dear.
    """
    units = attention_units(spec, Choice.granularity)
    attention = nearest_attention(spec, 1 / units) if units >= _MANY_GROUPS else 0.0
    return replace(Choice(), attention=attention, mlp=_FIRST_MLP)
