"""What a probe recommends, and why, in plain words."""

import math

import transact as ta
from transact.compression.frontier import CHANNELS, GROUPS, LAYERS, KindCost
from ui.format import numbers
from ui.state import slider_steps
from ui.state.probed import Probed

_MUCH_DEARER = 2.0


def advice(probed: Probed, spec: ta.ModelSpec) -> str:
    """One paragraph as HTML: what to leave whole, what to take and where from."""
    costs = {kind: probed.frontier.cost(kind) for kind in (CHANNELS, GROUPS, LAYERS)}
    sentences = [*_attention(spec, costs[GROUPS], costs[CHANNELS]), _channels(probed), *_layers(costs)]
    few = f"<small>Probed behind masks on {probed.frontier.num_tokens:,} tokens; predicted, not measured.</small>"
    return f'<p class="advice"><b>Recommended:</b> {" ".join(sentences)} {few}</p>'


def _attention(spec: ta.ModelSpec, groups: KindCost | None, channels: KindCost | None) -> list[str]:
    count = spec.layers[0].num_key_value_heads
    if groups is None:
        return ["the only key/value head of each layer has to stay;"]
    share, _ = groups.points[0]
    dear = f"one of {count} costs {_times(groups)} for {numbers.percent(share)} of the parameters"
    if channels is None or groups.price > _MUCH_DEARER * channels.price:
        why = f"{count} key/value heads only" if count < slider_steps.MANY_GROUPS else "heads are dear here"
        return [f"{why} ({dear}): leave attention whole;"]
    return [f"heads are not much dearer than channels here ({dear}): both may go;"]


def _channels(probed: Probed) -> str:
    where = f", more in {_ranges(probed.more_in)}" if probed.more_in else ", the same in every layer"
    cost = probed.frontier.cost(CHANNELS)
    if cost is None:
        return "there are no channels to take."
    return f"take channels{where} ({_times(cost)} for {numbers.percent(cost.points[0][0])}, before any repair)."


def _layers(costs: dict[str, KindCost | None]) -> list[str]:
    layers, channels = costs[LAYERS], costs[CHANNELS]
    if layers is None or channels is None:
        return []
    share, rise = layers.points[0]
    if rise >= channels.rise(share):
        return [f"Whole layers are dearer ({_times(layers)} for one)."]
    return [
        f"A whole layer is cheap here ({_times(layers)} for {numbers.percent(share)}): in a shell, try --keep-layers."
    ]


def _times(cost: KindCost) -> str:
    return f"perplexity {numbers.factor(1, math.exp(cost.points[0][1]))}"


def _ranges(layers: tuple[int, ...]) -> str:
    """(3, 4, 5, 9) -> "layers 3–5 and 9"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    words = [str(first) if first == last else f"{first}–{last}" for first, last in runs]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"layer{'s' if len(layers) > 1 else ''} {listed}"
