"""Streamed models are measured layer by layer, masked or cut, to the numbers that models in memory come to."""

import pytest
import torch

import transact as ta
from tests.tiers import FEW, LAYOUTS, cases
from tests.tiny_models import TINY, build, token_ids
from transact.streaming import streamed_model as streaming

UNEVEN = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))


def _texts(loaded: ta.LoadedModel, kind: type = ta.EvaluationSet):
    """Samples of different lengths, so that batches are padded."""
    rows = [ids[: 4 + index].tolist() for index, ids in enumerate(token_ids(loaded, samples=12, seq=16))]
    return kind.from_sequences(rows, name="ids")


def _saved(name: str, folder) -> str:
    ta.save(build(name, torch.float32), folder)
    return str(folder)


def _nothing_is_held(streamed: ta.StreamedModel) -> bool:
    return all(each.is_meta for each in streamed.model.parameters())


@pytest.mark.parametrize("name", cases(TINY, test=LAYOUTS, check=FEW))
def test_every_family_is_measured_as_in_memory(name, tmp_path):
    source = _saved(name, tmp_path / "base")
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    evaluation = _texts(loaded)
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, UNEVEN)
    with ta.masked(loaded, plan), ta.masked(streamed, plan):
        behind_masks = ta.perplexity(loaded, evaluation)
        assert ta.perplexity(streamed, evaluation) == pytest.approx(behind_masks, rel=1e-5)
    ta.stream_prune(streamed, plan, tmp_path / "cut")
    pruned = ta.load(str(tmp_path / "cut"))
    expected = ta.evaluate(pruned, evaluation, reference=loaded, speed=False)
    assert expected.perplexity == pytest.approx(behind_masks, rel=1e-5)
    for model in (pruned, ta.load_streamed(str(tmp_path / "cut"))):
        report = ta.evaluate(model, evaluation, reference=streamed)
        for name, value in vars(expected).items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-4, abs=1e-6)
            assert getattr(report, name) == value, name
    assert _nothing_is_held(streamed)


def test_every_layer_is_read_once_for_all_batches(tmp_path, monkeypatch):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))
    monkeypatch.setattr("transact.evaluation.evaluate._MAX_BATCH", 4)
    read = []
    whole = streamed.files.read
    monkeypatch.setattr(streamed.files, "read", lambda name, *how: (read.append(name), whole(name, *how))[1])
    told = []
    ta.perplexity(streamed, _texts(streamed), progress=lambda *seen: told.append(seen))
    layers = [name for name in read if ".layers." in name]
    assert len(layers) == len(set(layers)) == 9 * 3
    assert list(dict.fromkeys(done for done, _, unit in told if unit == "layers")) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_stopped_at_any_moment_it_holds_nothing(name, tmp_path):
    streamed = ta.load_streamed(_saved(name, tmp_path / "base"))
    evaluation = _texts(streamed)
    told = []
    expected = ta.perplexity(streamed, evaluation, progress=lambda *seen: told.append(seen))
    for moment in range(len(told)):
        calls = iter(range(moment))

        def progress(*seen, calls=calls) -> None:
            if next(calls, None) is None:
                raise ta.Cancelled

        with pytest.raises(ta.Cancelled):
            ta.perplexity(streamed, evaluation, progress=progress)
        assert _nothing_is_held(streamed)
    assert ta.perplexity(streamed, evaluation) == expected


def test_a_streamed_model_neither_writes_nor_is_timed(tmp_path):
    source = _saved("llama", tmp_path / "base")
    streamed, loaded = ta.load_streamed(source), ta.load(source)
    evaluation = _texts(streamed)
    for models in ((streamed, None), (loaded, streamed), (streamed, loaded)):
        report = ta.evaluate(models[0], evaluation, reference=models[1])
        assert report.prefill_tokens_per_second is None and "speed" not in report.protocol
        with pytest.raises(ta.InvalidOption, match="writing needs"):
            ta.evaluate(models[0], evaluation, reference=models[1], prompt="once")
    with pytest.raises(ta.InvalidOption, match="streamed"):
        ta.generate(ta.load_streamed("bundled"), "once")
    assert streamed.is_streamed and not loaded.is_streamed


def test_too_much_text_is_refused_before_it_is_read(tmp_path, monkeypatch):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))
    monkeypatch.setattr(streaming, "free_bytes", lambda device: 1000)
    with pytest.raises(ta.NotEnoughMemory, match="Give fewer or shorter samples"):
        ta.perplexity(streamed, _texts(streamed))


def test_stability_needs_a_layer_at_a_time(tmp_path):
    source = _saved("llama", tmp_path / "base")
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    calibration = _texts(loaded, ta.CalibrationSet)
    found, expected = (
        ta.stability(model, statistics, UNEVEN, metric="wanda", resamples=3)
        for model, statistics in (
            (streamed, ta.stream_observe(streamed, calibration, samples=True)),
            (loaded, ta.observe(loaded, calibration, samples=True)),
        )
    )
    assert found.plan.layers == expected.plan.layers
    assert found.channel_overlaps == expected.channel_overlaps
    assert _nothing_is_held(streamed)
