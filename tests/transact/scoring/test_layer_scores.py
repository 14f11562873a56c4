"""How much each layer changes the residual stream: by hand, from hidden states, in files, streamed, by all metrics."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import transact as ta
from tests.tiers import FEW, PLAIN, cases
from tests.tiny_models import TINY, build, token_ids
from transact.observing.accumulators import CosineAccumulator, RealTokens

pytestmark = pytest.mark.rounding


def _padded(loaded: ta.LoadedModel) -> ta.CalibrationSet:
    rows = [row[:length].tolist() for row, length in zip(token_ids(loaded, 5), (7, 12, 1, 12, 4), strict=True)]
    return ta.CalibrationSet.from_sequences(rows, name="padded")


def test_cosines_by_hand():
    """Tokens that stay (cosine 1), turn by a right angle (0), turn round (-1); the fourth is padding."""
    before = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [1.0, 1.0]]])
    after = torch.tensor([[[5.0, 0.0], [7.0, 0.0]], [[-3.0, -4.0], [1.0, 1.0]]])
    tokens = RealTokens(torch.tensor([[True, True], [True, False]]), lengths=(2, 1), samples=(2, 0))
    running = CosineAccumulator(torch.device("cpu"), num_samples=3)
    running.add(before, after, tokens)
    cosines = running.result()
    assert cosines.total.dtype == torch.float64 and cosines.total.item() == 0
    assert cosines.samples.tolist() == [-1, 0, 1]
    assert cosines.of_samples([2, 2, 0]).total.item() == 1


def test_sums_are_where_the_layer_computes():
    """What goes into the first layer of another device may still be where it was; torch's meta device stands for it."""
    tokens = RealTokens(torch.ones(1, 2, dtype=torch.bool), lengths=(2,), samples=(0,))
    running = CosineAccumulator(torch.device("meta"), num_samples=1)
    running.add(torch.ones(1, 2, 4), torch.ones(1, 2, 4, device="meta"), tokens)
    assert running.total.device == running.samples.device == torch.device("meta")


@pytest.mark.parametrize("name", cases(TINY, test=PLAIN, check=FEW))
def test_they_are_those_of_the_models_own_hidden_states(name):
    loaded = build(name)
    received: list[list[torch.Tensor]] = [[] for _ in loaded.decoder_layers]
    hooks = [
        layer.register_forward_hook(
            lambda _, inputs, output, at=at: at.append(
                torch.cosine_similarity(inputs[0], output if isinstance(output, torch.Tensor) else output[0], dim=-1)
            )
        )
        for layer, at in zip(loaded.decoder_layers, received, strict=True)
    ]
    with torch.no_grad():
        for row in _padded(loaded).rows():
            loaded.model(torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    expected = torch.stack([1 - torch.cat([each.flatten() for each in layer]).mean() for layer in received])
    scores = ta.score(loaded, ta.observe(loaded, _padded(loaded), batch_size=3))
    assert scores.layers.dtype == torch.float64 and scores.layers.shape == (3,)
    torch.testing.assert_close(scores.layers, expected.double(), rtol=1e-6, atol=1e-9)


def test_all_metrics_have_the_same_and_random_its_own():
    loaded = build("llama")
    statistics = ta.observe(loaded, _padded(loaded), taylor=True)
    expected = ta.score(loaded, statistics).layers
    for metric in ta.available_metrics(statistics):
        scores = ta.score(loaded, statistics, metric=metric)
        assert torch.equal(scores.layers, expected) == (metric != "random")
    first, again, other = (ta.score(loaded, statistics, metric="random", seed=seed).layers for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(
        ta.ImportanceScores.random(loaded.spec, 4).layers, ta.ImportanceScores.random(loaded.spec, 4).layers
    )


def test_a_removed_layer_changes_nothing_behind_a_mask():
    loaded = build("llama")
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, ta.PruningTarget(4, 40, keep_layers=2))
    with ta.masked(loaded, plan):
        scores = ta.score(loaded, ta.observe(loaded, _padded(loaded))).layers
    (removed,) = plan.removed_layers
    assert abs(scores[removed]) < 1e-12
    assert all(scores[layer] > 1e-3 for layer in plan.kept_layers)


def test_files_of_statistics_and_of_scores(tmp_path):
    loaded = build("llama")
    statistics = ta.observe(loaded, _padded(loaded), samples=True)
    statistics.save(tmp_path / "statistics.safetensors")
    again = ta.ActivationStatistics.load(tmp_path / "statistics.safetensors")
    scores = ta.score(loaded, statistics)
    assert torch.equal(ta.score(loaded, again).layers, scores.layers)
    part = ta.observe(loaded, ta.CalibrationSet.from_sequences(list(_padded(loaded).rows())[1:3], name="part"))
    subset = ta.score(loaded, again.subset([1, 2])).layers
    torch.testing.assert_close(subset, ta.score(loaded, part).layers, rtol=1e-5, atol=1e-7)
    read = ta.ImportanceScores.from_dict(json.loads(json.dumps(scores.to_dict())), loaded.spec)
    assert torch.equal(read.layers, scores.layers)


def test_files_of_before_load_and_say_what_to_do(tmp_path):
    loaded, target = build("llama"), ta.PruningTarget(2, 10, keep_layers=2)
    statistics, file = ta.observe(loaded, _padded(loaded)), tmp_path / "statistics.safetensors"
    statistics.save(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({name: each for name, each in load_file(file).items() if "residual" not in name}, file, metadata)
    scores = ta.score(loaded, ta.ActivationStatistics.load(file))
    assert scores.layers is None
    values = scores.to_dict()
    assert "layer_scores" not in values
    for old in (scores, ta.ImportanceScores.from_dict(values, loaded.spec)):
        assert ta.make_plan(old, loaded.spec, ta.PruningTarget(2, 10)).kept_layers == (0, 1, 2)
        with pytest.raises(ta.InvalidOption, match="Observe and score again, or leave out keep_layers"):
            ta.make_plan(old, loaded.spec, target)
    for wrong in ([0.1], [0.1, 0.2, float("nan")], "x", None):
        with pytest.raises(ta.InvalidPlan, match="no scores that can be read"):
            ta.ImportanceScores.from_dict(values | {"layer_scores": wrong}, loaded.spec)


@pytest.mark.parametrize("savepoint", [False, True])
def test_streamed_they_are_the_same(savepoint, tmp_path):
    dense = build("gemma2", torch.float32)
    ta.save(dense, tmp_path / "base")
    loaded = ta.load(str(tmp_path / "base"))
    streamed = ta.load_streamed(str(tmp_path / "base"))
    calls = 0

    def interrupt(*_) -> None:
        nonlocal calls
        calls += 1
        if savepoint and calls == 12:
            raise KeyboardInterrupt

    options = {"samples": True, "savepoint": tmp_path / "point" if savepoint else None}
    try:
        found = ta.stream_observe(streamed, _padded(loaded), **options, progress=interrupt)
    except KeyboardInterrupt:
        found = ta.stream_observe(streamed, _padded(loaded), **options)
    expected = ta.observe(loaded, _padded(loaded), samples=True)
    for one, other in zip(found.residual, expected.residual, strict=True):
        torch.testing.assert_close(one.total, other.total, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(one.samples, other.samples, rtol=1e-5, atol=1e-5)
