"""FLAP as published: its scores and its one threshold by hand, and what it comes to on the bundled model."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

import transact as ta
from tests.tiers import PLAIN, cases
from tests.tiny_models import TINY, build
from transact.observing.statistics import Moments
from transact.scoring.metrics import METRICS, Site
from transact.scoring.scores import ImportanceScores

SAMPLES = Path(__file__).resolve().parents[3] / "assets" / "samples"


def test_its_metric_is_squared_in_attention_alone():
    # two tokens: x_0 = 3, 5 and x_1 = 0, 4, variances 2 and 8; W has columns (1, -2) and (0, 2)
    activations = torch.tensor([[3.0, 0.0], [5.0, 4.0]], dtype=torch.float64)
    moments = Moments(activations.sum(0), activations.square().sum(0))
    weight = torch.tensor([[1.0, 0.0], [-2.0, 2.0]])
    for is_attention, expected in ((True, [10.0**2, 32.0**2]), (False, [10.0, 32.0])):
        site = Site(weight, moments, num_tokens=2, is_attention=is_attention)
        scores = METRICS["flap"].channel_scores(site, torch.Generator())
        torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64))
    heads = METRICS["flap"].head_scores(torch.tensor([[1.0, 3.0], [5.0, 7.0]]))
    assert heads.tolist() == [2.0, 6.0]


def test_its_metric_is_the_fluctuation_but_for_the_square():
    loaded = build("qwen2")
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(torch.arange(3, 43).reshape(2, 20)))
    plain, published = (ta.score(loaded, statistics, metric=metric) for metric in ("fluctuation", "flap"))
    for layer in range(loaded.spec.num_hidden_layers):
        assert torch.equal(published.mlp_channels[layer], plain.mlp_channels[layer])
        assert torch.equal(published.attention_channels[layer], plain.attention_channels[layer].square())
        torch.testing.assert_close(published.heads[layer], published.attention_channels[layer].mean(dim=1))


@pytest.fixture(scope="module")
def toy() -> ta.ModelSpec:
    """2 layers with 2 heads of 2 and 4 channels: a head holds 4 · 4 · 2 = 32 parameters, a channel 3 · 4 = 12."""
    config = LlamaConfig(
        hidden_size=4, num_attention_heads=2, num_key_value_heads=2, head_dim=2, intermediate_size=4,
        num_hidden_layers=2, vocab_size=8, max_position_embeddings=8,
    )  # fmt: skip
    return ta.ModelSpec.from_config(config)


def _scores(spec: ta.ModelSpec, attention, mlp, metric: str = "flap") -> ImportanceScores:
    """Scores of these channels: one list per layer."""
    attention, mlp = (tuple(torch.tensor(layer, dtype=torch.float64) for layer in kind) for kind in (attention, mlp))
    return ImportanceScores.from_channels(
        metric, attention, mlp, spec, fingerprint=spec.fingerprint, calibration="none"
    )


ATTENTION = [[1.0, 3, 5, 7], [0.0, 0, 0, 8]]
"""Standardised, means 4 and 2, deviations √(20/3) and 4: heads −0.77, 0.77 and −0.5, 0.5."""
MLP = [[0.0, 2, 4, 6], [1.0, 1, 1, 5]]
"""Standardised, means 3 and 2, deviations √(20/3) and 2: channels −1.16, −0.39, 0.39, 1.16 and −0.5 (thrice), 1.5."""


@pytest.mark.parametrize(
    ("target", "groups", "channels", "parameters"),
    [
        # descending, with what is held up to there: channel 1.5 (12), 1.16 (24), head 0.77 (56), 0.5 (88), channel
        # 0.39 (100), -0.39 (112), then on a tie at -0.5 the head (144) and three channels (180), head -0.77 (212),
        # channel -1.16 (224)
        (ta.PruningTarget(1, 2), [(1,), (1,)], [(1, 2, 3), (3,)], 112),
        (ta.PruningTarget(2, 1), [(1,), (0, 1)], [(1, 2, 3), (3,)], 144),
        # 136: the head at -0.5 would make it 144 and goes; channels fill what is left, of equals the first
        (ta.PruningTarget(1, 3), [(1,), (1,)], [(1, 2, 3), (0, 1, 3)], 136),
        # 200: without the head at -0.77 all channels make it 192, so that it stays and the lowest channels go
        (ta.PruningTarget(2, (4, 2)), [(0, 1), (0, 1)], [(1, 2, 3), (0, 1, 3)], 200),
        (ta.PruningTarget(2, 4), [(0, 1), (0, 1)], [(0, 1, 2, 3)] * 2, 224),
        (ta.PruningTarget(1, 1), [(1,), (1,)], [(3,), (3,)], 88),
    ],
)
def test_one_threshold_by_hand(toy, target, groups, channels, parameters):
    plan = ta.make_plan(_scores(toy, ATTENTION, MLP), toy, target, allocation="flap")
    assert [layer.kept_head_groups for layer in plan.layers] == groups
    assert [layer.kept_channels for layer in plan.layers] == channels
    assert plan.spec.num_parameters - toy.fixed_parameters == parameters
    assert plan.allocation == "flap" and ta.PruningPlan.from_json(plan.to_json()) == plan


def test_every_layer_keeps_a_head_and_a_channel(toy):
    """Layers that one unit alone stands out of: of layer 1 everything else is below what layer 0 loses."""
    attention, mlp = [[5.0, 5, 5, 5], [0.0, 0, 9, 9]], [[1.0, 1, 1, 1], [0.0, 0, 0, 9]]
    plan = ta.make_plan(_scores(toy, attention, mlp), toy, ta.PruningTarget(1, 1), allocation="flap")
    assert [layer.kept_head_groups for layer in plan.layers] == [(0,), (1,)]
    assert [layer.kept_channels for layer in plan.layers] == [(0,), (3,)]


def test_any_metric_can_stand_above_the_threshold(toy):
    """Sums of a head's channels are standardised as their mean is, peaks as a channel of that size would be."""
    published, plain = (_scores(toy, ATTENTION, MLP, metric) for metric in ("flap", "fluctuation"))
    for target in (ta.PruningTarget(1, 2), ta.PruningTarget(1, 3)):
        kept = [ta.make_plan(scores, toy, target, allocation="flap").layers for scores in (published, plain)]
        assert kept[0] == kept[1]
    # transact: a head of 2, 2 scores (2 + 5 · 2) / 6 = 2 standardised to 0.5; one of 0, 2 scores 11/6 and 1/3
    scores = _scores(toy, [[2.0, 2, 0, 2], [2.0, 0, 2, 2]], [[0.0, 0, 0, 8], [0.0, 0, 0, 8]], "transact")
    plan = ta.make_plan(scores, toy, ta.PruningTarget(1, 1), allocation="flap")
    assert [layer.kept_head_groups for layer in plan.layers] == [(0,), (1,)]


def test_locks_come_before_the_threshold(toy):
    scores, target = _scores(toy, ATTENTION, MLP), ta.PruningTarget(1, 2)
    locks = ta.Locks(
        keep_head_groups=frozenset({(0, 0)}), remove_head_groups=frozenset({(0, 1)}),
        keep_channels=frozenset({(0, 0)}), remove_channels=frozenset({(1, 3)}),
    )  # fmt: skip
    plan = ta.make_plan(scores, toy, target, allocation="flap", locks=locks)
    assert [layer.kept_head_groups for layer in plan.layers] == [(0,), (1,)]
    assert [layer.kept_channels for layer in plan.layers] == [(0, 2, 3), (0,)]
    every = frozenset((0, channel) for channel in range(4))
    with pytest.raises(ta.InvalidTarget, match="Layer 0 must keep at least 1 of 4 channels under flap allocation"):
        ta.make_plan(scores, toy, target, allocation="flap", locks=ta.Locks(remove_channels=every))
    with pytest.raises(ta.InvalidTarget, match="88 parameters together, but 124 must stay"):
        ta.make_plan(scores, toy, ta.PruningTarget(1, 1), allocation="flap", locks=ta.Locks(keep_channels=every))
    with pytest.raises(ta.InvalidTarget, match="224 parameters together, .* no more than 192"):
        gone = ta.Locks(remove_head_groups=frozenset({(0, 0)}))
        ta.make_plan(scores, toy, ta.PruningTarget(2, 4), allocation="flap", locks=gone)


def test_a_limit_of_the_cache_is_refused(toy):
    for target in (
        ta.PruningTarget.from_kv_bytes(toy, toy.kv_bytes_per_token() / 2),
        ta.PruningTarget.from_memory(toy, toy.num_parameters * 1.9, context=8),
    ):
        with pytest.raises(ta.InvalidTarget, match="limit of parameters"):
            ta.make_plan(_scores(toy, ATTENTION, MLP), toy, target, allocation="flap")


@pytest.mark.parametrize("name", cases(TINY, test=TINY, check=PLAIN))
def test_it_keeps_what_the_uniform_plan_keeps_to_less_than_a_channel(name):
    spec = build(name).spec
    scores = ImportanceScores.random(spec, seed=5)
    for groups, channels in ((1, 1), (2, 7), (3, 40), (4, 13)):
        target = ta.PruningTarget(groups, channels)
        uniform, published = (ta.make_plan(scores, spec, target, allocation=kind) for kind in ("uniform", "flap"))
        short = uniform.spec.num_parameters - published.spec.num_parameters
        assert 0 <= short < spec.parameters_per_channel


def test_groups_that_lose_heads_compete_as_what_stays_of_them():
    spec = build("llama").spec  # 4 groups of 2 heads
    scores = ImportanceScores.random(spec, seed=5)
    target = ta.PruningTarget(3, 20, keep_heads_per_group=1)
    uniform, published = (ta.make_plan(scores, spec, target, allocation=kind) for kind in ("uniform", "flap"))
    assert published.spec.group_size == 1
    assert 0 <= uniform.spec.num_parameters - published.spec.num_parameters < spec.parameters_per_channel


@pytest.mark.slow
def test_it_comes_to_the_known_perplexity_on_the_bundled_model():
    """At the parameters of 3 of 4 head groups and all channels: 1.55, where the uniform variant comes to 1.88.

    Dense is 1.546; 2 % leaves room for units that tie but for the order in which a library adds.
    """
    loaded = ta.load("bundled")
    calibration, evaluation = (
        kind.from_texts(_texts(name), loaded.tokenizer, seq_len=256, name=name)
        for kind, name in ((ta.CalibrationSet, "mixed"), (ta.EvaluationSet, "evaluation_mixed"))
    )
    statistics = ta.observe(loaded, calibration)
    target = ta.PruningTarget(3, 512)
    plan = ta.make_plan(ta.score(loaded, statistics, metric="flap"), loaded.spec, target, allocation="flap")
    uniform = target.spec(loaded.spec).num_parameters
    assert uniform - loaded.spec.parameters_per_channel < plan.spec.num_parameters <= uniform
    pruned = ta.prune(loaded, plan, compensation="bias", statistics=statistics)
    assert math.isclose(ta.perplexity(pruned, evaluation), 1.551, rel_tol=0.02)


def _texts(name: str) -> list[str]:
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
