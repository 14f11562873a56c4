"""What a probe recommends: attention is left whole where its step is dear, and every reason has its number."""

import pytest
from transformers import LlamaConfig

import transact as ta
from transact.compression.frontier import CHANNELS, GROUPS, LAYERS, Frontier, KindCost
from ui import figures
from ui.state.probed import Probed
from ui.views.advice import advice

SPEC = ta.ModelSpec.from_config(
    LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=3, head_dim=4, num_hidden_layers=4,
        intermediate_size=64, vocab_size=32,
    )
)  # fmt: skip


def probed(groups: float, layers: float, more_in: tuple[int, ...] = (1, 2, 3)) -> Probed:
    costs = (
        KindCost(CHANNELS, ((0.1, 0.05), (0.3, 0.4)), 1 / 64),
        KindCost(GROUPS, ((0.06, groups),), 1 / 3),
        KindCost(LAYERS, ((0.2, layers),), 1 / 4),
    )
    return Probed(Frontier(9.0, 1_024, costs), more_in, "text")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (probed(0.3, 1.0), ("3 key/value heads only (one of 3 costs perplexity × 1.35 for 6 % of the parameters): "
                            "leave attention whole", "take channels, more in layers 1–3", "Whole layers are dearer")),
        (probed(0.03, 0.01, (0, 2, 3)), ("both may go", "more in layers 0 and 2–3", "A whole layer is cheap here",
                                         "predicted, not measured")),
        (probed(0.03, 0.01, ()), ("the same in every layer",)),
    ],
)  # fmt: skip
def test_the_reason_is_told_with_its_number(found, words):
    shown = advice(found, SPEC)
    assert all(each in shown for each in words)


def test_predicted_and_measured_points_are_told_apart():
    figure = figures.frontier_figure(probed(0.3, 1.0).frontier, SPEC, 0.2, [(0.2, 1.4)])
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"channels, masked", "head groups, masked", "layers, masked", "predicted", "measured"}
    assert traces["predicted"].marker.symbol == "circle-open" and traces["measured"].marker.symbol == "circle"
    assert list(traces["measured"].y) == [1.4]
    assert list(traces["predicted"].y) == sorted(traces["predicted"].y)
    sizes = dict(zip([round(x, 2) for x in traces["predicted"].x], traces["predicted"].marker.size, strict=True))
    assert sizes[0.2] > sizes[0.3]
