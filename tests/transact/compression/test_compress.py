"""The whole way in a given time: the size is kept, the nearest to the dense model goes on, what is left teaches."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from tests.transact.cutting.test_leaves_nothing_behind import _hooks
from transact.compression import compress as module
from transact.compression.recipe import Recipe
from transact.compression.recipe import recipe_for as planned
from transact.compression.repeat import WAYS, Repeat
from transact.repair import distillation

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).resolve().parents[3] / "assets" / "samples"


@pytest.fixture
def dense() -> ta.LoadedModel:
    return build("llama", torch.float32)


def _text(dense: ta.LoadedModel, samples: int = 24) -> ta.CalibrationSet:
    return ta.CalibrationSet.from_token_ids(token_ids(dense, samples), name="drawn")


@pytest.fixture
def with_recipe(monkeypatch):
    """Makes every recipe the planned one with these changes."""

    def change(**changes):
        monkeypatch.setattr(module, "recipe_for", lambda *given, **named: replace(planned(*given, **named), **changes))

    return change


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "phi3", "opt"])
def test_the_size_is_kept_the_dense_model_too_and_stock_transformers_loads_it(name, tmp_path, with_recipe):
    with_recipe(tries=5, priced_tokens=200)
    dense = build(name, torch.float32)
    before = {key: value.clone() for key, value in dense.model.state_dict().items()}
    told, seen = [], []
    smaller = ta.compress(
        dense, _text(dense), size=0.8, minutes=0.04, report=told.append, progress=lambda *figures: seen.append(figures)
    )
    assert smaller.spec.num_parameters <= 0.8 * dense.spec.num_parameters
    assert all(torch.equal(before[key], value) for key, value in dense.model.state_dict().items())
    assert _hooks(dense) == _hooks(smaller) == 0
    assert isinstance(told[0], Recipe) and len(told) == 1
    assert {unit for _, _, unit in seen} == {"seconds"} and len({total for _, total, _ in seen}) == 1
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    ta.save(smaller, tmp_path / "out")
    again = ta.load(str(tmp_path / "out"), dtype="float32")
    ids = _text(dense).input_ids
    with torch.no_grad():
        torch.testing.assert_close(again.model(ids).logits, smaller.model(ids).logits, rtol=1e-3, atol=1e-3)


def test_what_is_nearest_on_text_held_back_goes_on(dense, monkeypatch, with_recipe):
    with_recipe(tries=5, priced_tokens=200, distills=False)
    tried: list[tuple[ta.LoadedModel, float]] = []
    read: list[ta.CalibrationSet] = []
    real, observe = module.divergence, module.observe_with_states

    def noted(pruned, predictions):
        assert not {*predictions.tokens.rows()} & {*read[0].rows()}
        tried.append((pruned, real(pruned, predictions)))
        return tried[-1][1]

    def observed(loaded, text, **options):
        read.append(text)
        return observe(loaded, text, **options)

    monkeypatch.setattr(module, "divergence", noted)
    monkeypatch.setattr(module, "observe_with_states", observed)
    smaller = ta.compress(dense, _text(dense), size=0.8, minutes=60)
    assert len(tried) >= 3
    assert smaller.model is min(tried, key=lambda each: each[1])[0].model


def test_the_rest_of_the_time_teaches(dense, monkeypatch, with_recipe):
    with_recipe(distills=True)
    given = {}
    real = module.distill

    def short(*models, seconds, **others):
        given["seconds"] = seconds
        return real(*models, steps=12, **others)

    monkeypatch.setattr(module, "distill", short)
    smaller = ta.compress(dense, _text(dense), size=0.6, minutes=5)
    assert 200 < given["seconds"] < 300
    assert "12 steps" in smaller.cuts[-1].trained and "drawn" in smaller.cuts[-1].trained
    assert smaller.fingerprint != replace(smaller, cuts=(replace(smaller.cuts[-1], trained=""),)).fingerprint


def test_uniform_widths_are_equal(dense, with_recipe):
    with_recipe(tries=5)
    smaller = ta.compress(dense, _text(dense), size=0.8, minutes=0.02, widths="uniform")
    assert len({(shape.num_key_value_heads, shape.intermediate_size) for shape in smaller.spec.layers}) == 1


def test_one_sample_is_enough_for_a_cut(dense):
    smaller = ta.compress(dense, _text(dense, 1), size=0.8, minutes=0.02)
    assert smaller.spec.num_parameters <= 0.8 * dense.spec.num_parameters and not smaller.cuts[-1].trained


def test_a_stop_keeps_the_best_so_far(dense, monkeypatch, with_recipe):
    with_recipe(tries=5, priced_tokens=200, distills=True)
    tried, real = [], module.divergence
    monkeypatch.setattr(module, "divergence", lambda *given: tried.append(real(*given)) or tried[-1])
    stopped = ta.compress(dense, _text(dense), size=0.8, minutes=60, stop=lambda: len(tried) == 2)
    assert len(tried) == 2 and stopped.spec.num_parameters <= 0.8 * dense.spec.num_parameters
    assert not stopped.cuts[-1].trained
    with pytest.raises(ta.Cancelled):
        ta.compress(dense, _text(dense), size=0.8, minutes=60, stop=lambda: True)


def test_a_stop_while_it_is_taught_keeps_what_was_learned(dense, monkeypatch, with_recipe):
    with_recipe(distills=True)
    monkeypatch.setattr(distillation, "_MEASURED_EVERY", 4)
    steps, real = [], distillation._Lesson._step
    monkeypatch.setattr(distillation._Lesson, "_step", lambda *given: steps.append(1) or real(*given))
    stopped = ta.compress(dense, _text(dense), size=0.6, minutes=60, stop=lambda: len(steps) >= 10)
    kept = Repeat.parse(stopped.cuts[-1].repeat).steps
    assert len(steps) == 10 and kept in (4, 8) and f"{kept} steps" in stopped.cuts[-1].trained
    assert _hooks(dense) == _hooks(stopped) == 0
    assert all(parameter.grad is None for parameter in stopped.model.parameters())


def test_what_the_clock_decided_is_done_again_to_the_bit(dense, monkeypatch, with_recipe):
    """Also where a stop left steps of distillation out, so that the result is of earlier ones."""
    monkeypatch.setattr(distillation, "_MEASURED_EVERY", 4)
    steps, real, kept = [], distillation._Lesson._step, []
    monkeypatch.setattr(distillation._Lesson, "_step", lambda *given: steps.append(1) or real(*given))
    for way in WAYS:
        with_recipe(tries=6, priced_tokens=0 if way == "half-scored" else 200, distills=True)
        with monkeypatch.context() as one_way:
            one_way.setattr(module._Work, "_ways", lambda work, way=way: [way])
            steps.clear()
            first = ta.compress(dense, _text(dense), size=0.6, minutes=20, stop=lambda: len(steps) >= 10)
        done = Repeat.parse(first.cuts[-1].repeat)
        kept.append(done.steps)
        assert len(steps) == 10 and done.way == way and done.steps in (0, 4, 8)
        steps.clear()
        told: list[Recipe] = []
        again = ta.compress(dense, _text(dense), repeat=str(done), report=told.append)
        assert again.cuts == first.cuts and again.fingerprint == first.fingerprint
        assert all(torch.equal(again.model.state_dict()[key], value) for key, value in first.model.state_dict().items())
        assert told[0].repeats == done and ("distilling" in told[0].words) == (done.steps > 0)
        assert len(steps) == done.steps
    assert max(kept) > 0


def test_reading_goes_by_the_clock_and_is_repeated_to_where_it_came(dense, monkeypatch, with_recipe):
    whole = module.held_back(_text(dense))[0]
    read: list[ta.ActivationStatistics] = []
    real = module.observe_with_states
    monkeypatch.setattr(module, "observe_with_states", lambda *given, **how: read.append(real(*given, **how)[0]) or (
        read[-1], {}
    ))  # fmt: skip
    for seconds, most, expected in ((0.0, 10**6, 8), (1e6, 10**6, whole.num_samples), (1e6, 1, 8)):
        with_recipe(reading_seconds=seconds, most_tokens=most, tries=1, distills=False)
        first = ta.compress(dense, _text(dense), size=0.8, minutes=0.02)
        assert read[-1].calibration.num_samples == expected
        assert f" read={read[-1].num_tokens} " in first.cuts[-1].repeat
        alone = ta.observe(dense, read[-1].tokens, gram=True)
        for moments, same in zip(read[-1].mlp, alone.mlp, strict=True):
            torch.testing.assert_close(moments.gram, same.gram, rtol=1e-5, atol=1e-5)
        again = ta.compress(dense, _text(dense), repeat=first.cuts[-1].repeat)
        assert read[-1].tokens.fingerprint == read[-2].tokens.fingerprint and again.fingerprint == first.fingerprint


def test_a_result_that_was_not_taught_is_made_again(dense):
    first = ta.compress(dense, _text(dense), size=0.8, minutes=0.001)
    assert not first.cuts[-1].trained
    again = ta.compress(dense, _text(dense), repeat=first.cuts[-1].repeat)
    assert again.cuts == first.cuts
    assert all(torch.equal(again.model.state_dict()[key], value) for key, value in first.model.state_dict().items())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"size": 0}, ta.InvalidTarget),
        ({"size": 1.5}, ta.InvalidTarget),
        ({"size": 1e-6}, ta.InvalidTarget),
        ({"minutes": 0}, ta.InvalidOption),
        ({"minutes": float("nan")}, ta.InvalidOption),
        ({"minutes": "3"}, ta.InvalidOption),
        ({"widths": "odd"}, ta.InvalidOption),
        ({"size": None}, ta.InvalidOption),
        ({"repeat": "size=0.8 read=5 way=equal"}, ta.InvalidOption),
        *(
            ({"size": None, "repeat": record}, ta.InvalidOption)
            for record in (
                "",
                "again",
                5,
                "size=0.8 read=5",
                "size=0.8 read=5 way=odd",
                "size=0.8 read=0 way=equal",
                "size=nan read=5 way=equal",
                "size=0.8 read=5 way=equal steps=-1",
                "size=0.8 read=5 way=equal odd=1",
                "size=0.8 read=5 read=x way=equal",
            )
        ),
        ({"size": None, "repeat": "size=1.5 read=5 way=equal"}, ta.InvalidTarget),
    ],
)
def test_wrong_numbers_are_refused(dense, wrong, error):
    with pytest.raises(error):
        ta.compress(dense, _text(dense), **{"size": 0.8, **wrong})


def test_foreign_text_is_refused(dense):
    with pytest.raises(ta.InvalidText):
        ta.compress(dense, ta.CalibrationSet.from_token_ids([[5, 100_000]]), size=0.8)


@pytest.mark.long
def test_a_minute_gives_more_than_least_squares(bundled):
    """On text that took no part, at half of the bundled model's parameters."""
    read, measured = (_samples(name) for name in ("stories", "evaluation_stories"))
    text = ta.CalibrationSet.from_texts(read, bundled.tokenizer, num_samples=128, seq_len=128)
    measured_on = ta.EvaluationSet.from_texts(measured, bundled.tokenizer, seq_len=128)
    statistics = ta.observe(bundled, text, gram=True)
    target = ta.PruningTarget.from_parameters(bundled.spec, bundled.spec.num_parameters // 2)
    plan = ta.make_plan(ta.score(bundled, statistics), bundled.spec, target)
    refitted = ta.prune(bundled, plan, compensation="least_squares", statistics=statistics)
    smaller = ta.compress(bundled, text, size=0.5, minutes=1)
    assert smaller.spec.num_parameters <= refitted.spec.num_parameters
    dense, least_squares, ours = (math.log(ta.perplexity(each, measured_on)) for each in (bundled, refitted, smaller))
    assert ours - dense < 0.6 * (least_squares - dense)


def _samples(name: str) -> list[str]:
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]
