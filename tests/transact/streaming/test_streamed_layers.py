"""Whole layers that go from a streamed model: the checkpoint is that of the model in memory, also after a stop."""

import pytest

import transact as ta
from tests.tiers import FEW, LAYOUTS, cases
from tests.tiny_models import TINY
from tests.transact.streaming.test_streaming import (
    _assert_same_checkpoint,
    _saved,
    _stop_at,
    _Stopped,
    _text,
    news,
)

TARGET = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13), keep_layers=2)
# of GPT-2 with attention that is divided by the number of its layer, only the last layers can go
NAMES = [name for name in TINY if name != "gpt2-default-width"]


@pytest.mark.parametrize("name", cases(NAMES, test=LAYOUTS, check=FEW))
def test_every_family_comes_to_what_it_does_in_memory(name, tmp_path):
    source = _saved(name, tmp_path / "base")
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    statistics = ta.stream_observe(streamed, _text(loaded), gram="by_layer")
    plan = ta.make_plan(ta.score(streamed, statistics), loaded.spec, TARGET)
    assert len(plan.kept_layers) == 2
    for compensation, layers in (("none", "padded"), ("bias", "padded"), ("least_squares", "compact")):
        folders = [tmp_path / f"{way} {compensation}" for way in ("streamed", "in memory")]
        options = {"compensation": compensation, "statistics": statistics}
        try:
            pruned = ta.prune(loaded, plan, **options)
        except ta.InvalidOption:  # no stock class of this family holds the biases
            assert compensation == "bias"
            continue
        report = ta.stream_prune(streamed, plan, folders[0], layers=layers, **options)
        assert vars(report) == vars(ta.save(pruned, folders[1], layers=layers)) | {"directory": str(folders[0])}
        _assert_same_checkpoint(folders[0], folders[1])
    with ta.masked(loaded, plan), ta.masked(streamed, plan):
        whole, by_layer = (ta.perplexity(each, _text(loaded)) for each in (loaded, streamed))
    assert whole == pytest.approx(by_layer, rel=1e-5)


@pytest.mark.parametrize("compensation", ["none", "least_squares"])
def test_stopped_before_any_layer_it_goes_on_there(compensation, tmp_path):
    streamed = ta.load_streamed(_saved("llama-tied", tmp_path / "base"))
    statistics = ta.stream_observe(streamed, _text(streamed), gram="by_layer")
    plan = ta.make_plan(ta.ImportanceScores.random(streamed.spec, 1), streamed.spec, ta.PruningTarget(2, 24))
    plan = ta.PruningPlan.from_json(plan.to_json().replace('"kept_layers": [0, 1, 2]', '"kept_layers": [0, 2]'))
    work = {"compensation": compensation, "statistics": statistics}
    ta.stream_prune(streamed, plan, tmp_path / "whole", **work)
    for layer in range(3):
        out = tmp_path / f"out {layer}"
        with pytest.raises(_Stopped):
            ta.stream_prune(streamed, plan, out, **work, progress=_stop_at(layer))
        told = []
        ta.stream_prune(streamed, plan, out, **work, progress=news(lambda done, *_, told=told: told.append(done)))
        assert told == list(range(layer, 3))
        for file in (tmp_path / "whole").iterdir():
            assert (out / file.name).read_bytes() == file.read_bytes(), file.name
