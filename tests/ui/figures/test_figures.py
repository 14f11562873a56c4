"""Figures by hand: where the marks stand, and what the arrays hold."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

import transact as ta
from ui import figures
from ui.state.score_bins import MAX_BINS, Landscape
from ui.state.view import Selection


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
    assert landscape.removed_heads(plan).tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert landscape.removed_bins(plan).tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]


def test_of_heads_that_become_narrower_their_share_is_hatched(scores):
    narrower = ta.PruningTarget(keep_head_groups=1, keep_channels=6, keep_value_dim=2)
    plan = ta.make_plan(scores, spec(), narrower)
    landscape = Landscape.of(scores, spec())
    assert landscape.removed_heads(plan).tolist() == [[1, 1, 0.25, 0.25], [0.25, 0.25, 1, 1]]
    x, y = figures.heads_overlay(landscape, plan, ta.Locks(), Selection()).removed
    rectangles = {(tuple(x[start : start + 2]), y[start] + 0.46) for start in range(0, len(x), 6)}
    partly = {((head - 0.5, head - 0.25), layer) for head, layer in ((2, 0), (3, 0), (0, 1), (1, 1))}
    assert rectangles == {((-0.5, 1.5), 0), ((1.5, 3.5), 1)} | partly


def test_outlines_join_neighbours_and_are_closed():
    removed = np.array([[True, True, False, True], [False, False, False, False]])
    x, y = figures.removed_runs(removed, np.arange(5) - 0.5)
    assert x[:5].tolist() == [-0.5, 1.5, 1.5, -0.5, -0.5]
    assert x[6:11].tolist() == [2.5, 3.5, 3.5, 2.5, 2.5]
    assert np.isnan(x[[5, 11]]).all()
    assert len(x) == 12
    assert y[:2].tolist() == [-0.46, -0.46]


DRAWN = ((figures.heads_overlay, figures.heads_figure), (figures.channels_overlay, figures.channels_figure))


@pytest.mark.parametrize("normalisation", figures.NORMALISATIONS)
def test_maps_are_hatched_and_light(scores, plan, normalisation):
    landscape = Landscape.of(scores, spec())
    for overlay, draw in DRAWN:
        figure = draw(landscape, overlay(landscape, plan, ta.Locks(), Selection(1)), normalisation=normalisation)
        heat, removed, *_, selected = figure.data
        assert heat.z.dtype == np.float32
        assert removed.fillpattern.shape == "/"
        assert np.isnan(removed.x).sum() == 2  # one run in each layer
        assert set(selected.y[:5]) == {0.5, 1.5}
        assert figure.layout.uirevision


def test_locks_and_selection_stand_on_their_units(scores, plan):
    landscape = Landscape.of(scores, spec())
    locks = ta.Locks(keep_head_groups=frozenset({(1, 1)}), remove_channels=frozenset({(0, 4)}))
    heads = figures.heads_overlay(landscape, plan, locks, Selection(1, head=2))
    assert [points.tolist() for points in heads.kept_by_lock] == [[2, 3], [1, 1]]  # both heads of group 1
    assert heads.selected[0].tolist()[6:11] == [1.5, 2.5, 2.5, 1.5, 1.5]
    channels = figures.channels_overlay(landscape, plan, locks, Selection(0, channels=(4,)))
    # channel 4 of layer 0 has rank 1 of 6: its bin runs from 1/6 to 2/6 of the axis
    assert channels.removed_by_lock[0].tolist() == pytest.approx([25])
    assert channels.selected[0].tolist()[6:8] == pytest.approx([100 / 6, 200 / 6])
    assert len(channels.kept_by_lock[0]) == 0


def test_a_layer_is_normalised_by_its_own_highest(scores):
    landscape = Landscape.of(scores, spec())
    overlay = figures.heads_overlay(landscape, None, ta.Locks(), Selection())
    own = figures.heads_figure(landscape, overlay, normalisation="layer").data[0].z
    assert own.max(axis=1).tolist() == [1, 1]


def test_all_zero_scores_draw_without_a_warning():
    flat = ta.ImportanceScores.from_channels(
        "wanda", (torch.zeros(16, dtype=torch.float64),) * 2, (torch.zeros(6, dtype=torch.float64),) * 2, spec(),
        fingerprint=spec().fingerprint, calibration="zeros",
    )  # fmt: skip
    landscape = Landscape.of(flat, spec())
    with np.errstate(all="raise"):
        for overlay, draw in DRAWN:
            for normalisation in figures.NORMALISATIONS:
                draw(landscape, overlay(landscape, None, ta.Locks(), Selection()), normalisation=normalisation)
        figures.layer_channels_figure(landscape, None, Selection())
        figures.distribution_figure(landscape, None, Selection())
        figures.head_channels_figure(flat, Selection())


def test_cumulative_share_ends_at_everything(scores, plan):
    landscape = Landscape.of(scores, spec())
    figure = figures.layer_channels_figure(landscape, plan, Selection(0))
    assert figure.data[1].y.tolist() == pytest.approx([600 / 21, 1100 / 21, 1500 / 21, 1800 / 21, 2000 / 21, 100])
    assert any(shape.x0 == 2.5 for shape in figure.layout.shapes)  # two channels are kept


def test_the_distribution_counts_every_channel_once(scores, plan):
    figure = figures.distribution_figure(Landscape.of(scores, spec()), plan, Selection(0))
    stays, goes = figure.data
    assert (stays.y.sum(), goes.y.sum()) == (2, 4)
    assert goes.marker.pattern.shape == "/"


def test_inside_a_head_stand_its_own_channels(scores):
    figure = figures.head_channels_figure(scores, Selection(0, head=1))
    assert figure.data[0].y.tolist() == [5, 6, 7, 8]
    best = figures.head_channels_figure(scores, Selection(1))
    assert best.data[0].y.tolist() == [16, 15, 14, 13]


def test_differences_have_the_sign_of_the_second_text(scores):
    second = ta.ImportanceScores.from_channels(
        "wanda", tuple(layer.flatten().flip(0) for layer in scores.attention_channels),
        tuple(layer.flip(0) for layer in scores.mlp_channels), spec(), fingerprint=spec().fingerprint,
        calibration="other",
    )  # fmt: skip
    compared = ta.compare_calibrations(scores, second)
    landscape = Landscape.of(scores, spec())
    heads = figures.head_differences_figure(compared, ("one", "two")).data[0].z
    assert heads[0, 0] > 0 > heads[0, -1]
    channels = figures.channel_differences_figure(compared, landscape, ("one", "two")).data[0].z
    # best first on the first text: layer 0's best channel scores 6 of a mean of 3.5 there and 1 on the second
    assert channels[0, 0] == pytest.approx((1 - 6) / 3.5)
    assert figures.correlation_figure(compared).data[1].y.tolist() == pytest.approx([-1, -1])


def test_the_front_holds_what_nothing_beats():
    assert figures.pareto_front([(3, 5.0), (1, 9.0), (2, 9.5), (2, 6.0), (4, 5.0)]) == [(1, 9.0), (2, 6.0), (3, 5.0)]


def test_random_results_are_told_apart_by_their_symbol():
    points = [figures.Point(1, 100, 9.0, floor=30.0), figures.Point(2, 100, 20.0, floor=20.0)]
    traces = {trace.name: trace for trace in figures.pareto_figure(points, (200, 5.0)).data}
    assert traces["measured"].y == (9.0,)
    assert traces["random (the floor)"].y == (30.0, 20.0)
    assert len({trace.marker.symbol for trace in traces.values() if trace.mode != "lines"}) == 3
    with_masks = figures.pareto_figure(points, (200, 5.0), [(100, 12.0)])
    assert with_masks.data[0].y == figures.pareto_figure(points, (200, 5.0)).data[0].y  # no part of the front
    symbols = [trace.marker.symbol for trace in with_masks.data if trace.mode != "lines"]
    assert len(set(symbols)) == len(symbols) == 4


def test_the_map_fills_where_it_is_measured(plan):
    def point(groups: int, channels: int, perplexity: float) -> ta.SweepPoint:
        target = ta.PruningTarget(groups, channels, (("attention_sparsity", 1 - groups / 2), ("mlp_sparsity", 0.5)))
        shaped = ta.make_plan(ta.ImportanceScores.random(spec()), spec(), target)
        return ta.SweepPoint(target, shaped, perplexity, shaped.spec.num_parameters)

    points = (point(2, 6, 4.0), point(1, 3, 40.0))
    heat = figures.redundancy_figure(points, spec()).data[0]
    assert heat.z[0][0] == 0 and heat.z[1][1] == pytest.approx(1)
    assert heat.text[0][0] == "× 1.00" and heat.text[1][1] == "× 10.0"
    assert np.isnan(heat.z[0][1]) and heat.text[0][1] == ""
    assert figures.redundancy_cell(points, spec(), 1, 1) == (0.5, 0.5)
    alone = figures.redundancy_figure(points[1:], spec()).data[0]  # the dense model is not among them
    assert alone.text[0][0] == "40.0" and alone.z[0][0] == pytest.approx(np.log10(40))


def test_recovery_is_drawn_along_all_phases():
    """Tokens go on counting from phase to phase; levels are the dense model's and the untrained cut's."""
    point = ta.RecoveryPoint
    points = (
        point("dense", 0, 0, 9, perplexity=4.0),
        point("shot 1 of 2", 0, 0, 7, perplexity=30.0),
        point("shot 1 of 2", 2, 100, 7, loss=3.0),
        point("shot 1 of 2", 2, 100, 7, perplexity=9.0),
        point("shot 2 of 2", 0, 0, 5, perplexity=20.0),
        point("recovery", 3, 150, 5, loss=2.0),
        point("recovery", 3, 150, 5, perplexity=6.0),
    )
    drawn = figures.recovery_figure(points, one_shot=80.0)
    loss, perplexity, *levels = drawn.data
    assert list(loss.x) == [100, 250] and list(loss.y) == [3.0, 2.0]
    assert list(perplexity.x) == [0, 100, 100, 250] and list(perplexity.y) == [7.5, 2.25, 5.0, 1.5]
    assert [(level.name, list(level.y)) for level in levels] == [
        ("dense × 1.00", [1.0, 1.0]),
        ("one shot, not trained × 20.0", [20.0, 20.0]),
    ]
    assert [note.text for note in drawn.layout.annotations] == ["shot 1", "shot 2"]
    assert [line.x0 for line in drawn.layout.shapes] == [0, 100]
    assert figures.recovery_figure(points).data[-1].name == "one shot, not trained × 7.50"
