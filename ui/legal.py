"""Which slider positions are legal: whole head groups, and at least one of everything left."""

from dataclasses import replace

import transact as ta
from ui.session import Choice

MLP_STEP = 0.01


def attention_step(spec: ta.ModelSpec) -> float:
    """1 / groups, rounded down so that k steps never ask for more than k groups."""
    return int(1e6 / spec.layers[0].num_key_value_heads) / 1e6


def nearest_attention(spec: ta.ModelSpec, sparsity: float) -> float:
    """The legal attention sparsity nearest to what was asked for."""
    groups = spec.layers[0].num_key_value_heads
    removed = min(groups - 1, max(0, round(sparsity * groups)))
    return round(removed * attention_step(spec), 6)


def start(spec: ta.ModelSpec) -> Choice:
    """Where the controls stand when a model comes in: about a quarter of attention, half of the MLP."""
    choice = Choice()
    return replace(choice, attention=nearest_attention(spec, choice.attention))
