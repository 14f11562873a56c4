"""Scores: by hand, against the authors' own scorer, and untouched by padding."""

import json
import math

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from transact.observing.statistics import Moments
from transact.scoring.metrics import METRICS, Site
from transact.scoring.scores import ImportanceScores

pytestmark = pytest.mark.rounding


def test_channel_scores_by_hand():
    # two tokens: x_0 = 3, 4 and x_1 = 1, 1; W has columns (1, -2) and (0, 2)
    activations = torch.tensor([[3.0, 1.0], [4.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [-2.0, 2.0]])
    site = Site(weight, Moments(activations.sum(0), activations.square().sum(0)), num_tokens=2, is_attention=False)
    expected = {
        "transact": [5.0, math.sqrt(2)],
        "wanda": [3 * 5.0, 2 * math.sqrt(2)],
        "fluctuation": [0.5 * 5.0, 0.0],
        "flap": [0.5 * 5.0, 0.0],
        "magnitude": [math.sqrt(5), 2.0],
    }
    for name, values in expected.items():
        scores = METRICS[name].channel_scores(site, torch.Generator())
        torch.testing.assert_close(scores, torch.tensor(values, dtype=torch.float64))


def test_head_and_group_scores_by_hand():
    spec = build("llama").spec  # 8 heads of 4 in 4 groups
    channels = torch.arange(32, dtype=torch.float64)
    mlp = torch.ones(40, dtype=torch.float64)

    def scores(metric):
        return ImportanceScores.from_channels(
            metric, (channels,) * 3, (mlp,) * 3, spec, fingerprint=spec.fingerprint, calibration="none"
        )

    # head 1 holds 4, 5, 6, 7: mean 5.5, largest 7, 10 / head_dim = 2.5
    assert scores("transact").heads[0][1] == 5.5 + 2.5 * 7
    assert scores("wanda").heads[0][1] == 22
    # group 0 is heads 0 and 1: 0+1+2+3 and 4+5+6+7
    assert scores("wanda").head_groups[2][0] == (6 + 22) / 2
    assert scores("wanda").attention_channels[0].shape == (8, 4)


def test_scores_equal_the_authors_scorer(stories, data):
    reference = json.loads((data / "reference_scores.json").read_text())
    calibration = ta.CalibrationSet.from_token_ids(torch.tensor(reference["input_ids"]), name="reference")
    scores = ta.score(stories, ta.observe(stories, calibration))
    for name, ours in (
        ("attention_channel_scores", [layer.flatten() for layer in scores.attention_channels]),
        ("mlp_channel_scores", scores.mlp_channels),
        ("head_scores", scores.heads),
    ):
        theirs = torch.tensor(reference[name], dtype=torch.float64)
        torch.testing.assert_close(torch.stack(list(ours)), theirs, rtol=1e-4, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_padding_and_batch_size_never_change_a_score(stories, calibration_texts, side, batch_size):
    texts = calibration_texts[:16]
    plain = ta.CalibrationSet.from_texts(texts, stories.tokenizer, seq_len=200)
    expected = ta.score(stories, ta.observe(stories, plain, batch_size=4))
    width = plain.input_ids.shape[1] + 5
    ids = torch.full((plain.num_samples, width), 3)
    mask = torch.zeros(plain.num_samples, width, dtype=torch.bool)
    for row, length in enumerate(plain.lengths):
        place = slice(width - length, width) if side == "left" else slice(length)
        ids[row, place] = plain.input_ids[row, :length]
        mask[row, place] = True
    padded = ta.CalibrationSet.from_token_ids(ids, mask)
    scores = ta.score(stories, ta.observe(stories, padded, batch_size=batch_size))
    for ours, theirs in zip(scores.mlp_channels + scores.heads, expected.mlp_channels + expected.heads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_statistics_are_those_of_the_recorded_inputs():
    loaded = build("qwen2")
    ids = token_ids(loaded, samples=3)
    seen = []
    handle = loaded.decoder_layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        loaded.model(ids)
    handle.remove()
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(ids), batch_size=2)
    flat = seen[0].flatten(0, 1)
    torch.testing.assert_close(statistics.mlp[1].sums, flat.sum(0))
    torch.testing.assert_close(statistics.mlp[1].square_sums, flat.square().sum(0))
    torch.testing.assert_close(statistics.mlp[1].variances(len(flat)), flat.var(0))


def test_statistics_round_trip(tmp_path):
    loaded = build("llama")
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded), name="ids"))
    statistics.save(tmp_path / "statistics.safetensors")
    again = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
    assert vars(again.calibration) == vars(statistics.calibration)
    before, after = ta.score(loaded, statistics, metric="wanda"), ta.score(loaded, again, metric="wanda")
    assert all(map(torch.equal, before.mlp_channels, after.mlp_channels))
    (tmp_path / "other.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(ta.CheckpointBroken):
        ta.ActivationStatistics.load(tmp_path / "other.safetensors")


def test_random_scores_need_no_model_and_are_seeded():
    spec = build("llama").spec
    first, same, other = (ImportanceScores.random(spec, seed) for seed in (0, 0, 1))
    assert torch.equal(first.mlp_channels[2], same.mlp_channels[2])
    assert not torch.equal(first.mlp_channels[2], other.mlp_channels[2])


def test_unknown_metric_and_foreign_statistics_are_refused():
    loaded, other = build("llama"), build("llama-multi-head")
    statistics = ta.observe(loaded, ta.CalibrationSet.from_token_ids(token_ids(loaded)))
    with pytest.raises(ta.InvalidOption, match="transact, wanda"):
        ta.score(loaded, statistics, metric="salience")
    with pytest.raises(ta.InvalidPlan, match="another model"):
        ta.score(other, statistics)
