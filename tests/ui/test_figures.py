"""Figures by hand: where the marks stand, and what the arrays hold."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

import transact as ta
from ui import figures
from ui.landscape import MAX_BINS, Landscape


def spec(channels: int = 6, layers: int = 2) -> ta.ModelSpec:
    return ta.ModelSpec.from_config(
        LlamaConfig(
            hidden_size=16,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
            num_hidden_layers=layers,
            intermediate_size=channels,
            vocab_size=32,
        )
    )


@pytest.fixture
def scores() -> ta.ImportanceScores:
    """Layer 0 rates heads and channels upwards, layer 1 downwards."""
    heads = torch.arange(1, 17, dtype=torch.float64)
    channels = torch.tensor([1, 2, 3, 4, 5, 6], dtype=torch.float64)
    return ta.ImportanceScores.from_channels(
        "wanda", (heads, heads.flip(0)), (channels, channels.flip(0)), spec(), fingerprint=spec().fingerprint,
        calibration="by hand",
    )  # fmt: skip


@pytest.fixture
def plan(scores) -> ta.PruningPlan:
    return ta.make_plan(scores, spec(), ta.PruningTarget(keep_head_groups=1, keep_channels=(2, 5)))


def test_channels_are_sorted_by_falling_score(scores):
    landscape = Landscape.of(scores, spec())
    assert landscape.bins.tolist() == [[6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]]
    assert landscape.order[0].tolist() == [5, 4, 3, 2, 1, 0]
    assert landscape.order[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_many_channels_share_bins():
    wide = spec(channels=1100, layers=1)
    landscape = Landscape.of(ta.ImportanceScores.random(wide), wide)
    assert landscape.bins.shape == (1, MAX_BINS)
    sizes = np.diff(landscape.edges[0])
    assert sizes.sum() == 1100
    assert set(sizes.tolist()) == {2, 3}
    ranked = landscape.channels[0][landscape.order[0]]
    assert landscape.bins[0, 0] == pytest.approx(ranked[: sizes[0]].mean())
    assert landscape.strongest[0, 0] == landscape.order[0][0]


def test_removed_heads_and_channels_stand_where_the_plan_says(scores, plan):
    landscape = Landscape.of(scores, spec())
    assert landscape.removed_heads(plan).tolist() == [[True, True, False, False], [False, False, True, True]]
    assert landscape.removed_bins(plan).tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]


def test_outlines_join_neighbours_and_are_closed():
    removed = np.array([[True, True, False, True], [False, False, False, False]])
    x, y = figures.removed_runs(removed, np.arange(5) - 0.5)
    assert x[:5].tolist() == [-0.5, 1.5, 1.5, -0.5, -0.5]
    assert x[6:11].tolist() == [2.5, 3.5, 3.5, 2.5, 2.5]
    assert np.isnan(x[[5, 11]]).all()
    assert len(x) == 12
    assert y[:2].tolist() == [-0.46, -0.46]


@pytest.mark.parametrize("normalisation", figures.NORMALISATIONS)
def test_maps_are_hatched_and_light(scores, plan, normalisation):
    landscape = Landscape.of(scores, spec())
    for draw in (figures.heads_figure, figures.channels_figure):
        figure = draw(landscape, plan, layer=1, normalisation=normalisation)
        heat, marks = figure.data
        assert heat.z.dtype == np.float32
        assert marks.fillpattern.shape == "/"
        assert np.isnan(marks.x).sum() == 2  # one run in each layer
        assert figure.layout.uirevision


def test_a_layer_is_normalised_by_its_own_highest(scores):
    landscape = Landscape.of(scores, spec())
    own = figures.heads_figure(landscape, None, layer=0, normalisation="layer").data[0].z
    assert own.max(axis=1).tolist() == [1, 1]


def test_all_zero_scores_draw_without_a_warning():
    flat = ta.ImportanceScores.from_channels(
        "wanda", (torch.zeros(16, dtype=torch.float64),) * 2, (torch.zeros(6, dtype=torch.float64),) * 2, spec(),
        fingerprint=spec().fingerprint, calibration="zeros",
    )  # fmt: skip
    landscape = Landscape.of(flat, spec())
    with np.errstate(all="raise"):
        figures.heads_figure(landscape, None, layer=0, normalisation="layer")
        figures.channels_figure(landscape, None, layer=0, normalisation="model")
        figures.layer_channels_figure(landscape, None, layer=0)


def test_cumulative_share_ends_at_everything(scores, plan):
    landscape = Landscape.of(scores, spec())
    figure = figures.layer_channels_figure(landscape, plan, layer=0)
    assert figure.data[1].y.tolist() == pytest.approx([600 / 21, 1100 / 21, 1500 / 21, 1800 / 21, 2000 / 21, 100])
    assert any(shape.x0 == 2.5 for shape in figure.layout.shapes)  # two channels are kept


def test_random_results_are_told_apart_by_their_symbol():
    figure = figures.pareto_figure([("#1", 100, 9.0, "scored"), ("#2", 100, 20.0, "random")], (200, 5.0))
    assert len({trace.marker.symbol for trace in figure.data}) == 3
