"""Speeds with a clock that is set by hand: what is timed, its spread, and when two of them differ."""

import itertools
import re

import pytest
import torch

import transact as ta
from tests.tiny_models import build, token_ids
from transact.cli import summaries
from transact.evaluation import speed


@pytest.fixture
def clock(monkeypatch):
    """Sets the seconds of each pass in turn: reading, then writing, model after model, round after round."""

    def set_to(*seconds: float) -> None:
        steps = itertools.chain.from_iterable((0.0, read, written) for read, written in seconds)
        now = itertools.accumulate(steps)
        monkeypatch.setattr(speed, "seconds_at", lambda device: next(now))

    return set_to


def pruned(dense: ta.LoadedModel, groups: int = 2, channels: int = 20) -> ta.LoadedModel:
    scores = ta.ImportanceScores.random(dense.spec)
    return ta.prune(dense, ta.make_plan(scores, dense.spec, ta.PruningTarget(groups, channels)))


def test_medians_and_spreads_by_hand(clock):
    """The first round is to warm up."""
    loaded = build("llama", torch.float32)
    clock((9, 9), (1, 4), (2, 2), (4, 1))
    (taken,) = ta.measure_speed((loaded,), prefill_tokens=16, decode_tokens=8, repeats=3)
    assert (taken.prefill, taken.prefill_spread) == (8, (4, 16))
    assert (taken.decode, taken.decode_spread) == (4, (2, 8))
    spec = loaded.spec
    assert taken.prefill_flops_per_token == spec.prefill_flops(16, logits=1) / 16
    assert taken.decode_flops_per_token == sum(spec.flops_per_token(context=16 + step) for step in range(1, 9)) / 8


def test_the_operations_are_those_of_what_is_timed(monkeypatch):
    """Counted while the very passes run that are timed."""
    from torch.utils.flop_counter import FlopCounterMode

    loaded = build("llama", torch.float32)
    loaded.model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        (taken,) = ta.measure_speed((loaded,), prefill_tokens=1, decode_tokens=8, repeats=1)
    counts = counter.get_flop_counts()
    angles = sum(sum(values.values()) for name, values in counts.items() if name.endswith("rotary_emb"))
    rounds = 2  # one to warm up
    of_a_round = (sum(counts["Global"].values()) - angles) / rounds
    assert of_a_round == taken.prefill_flops_per_token + 8 * taken.decode_flops_per_token


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((1, 2), (3, 4), True), ((3, 4), (1, 2), True), ((1, 3), (2, 4), False), ((1, 2), (2, 3), False)],
)
def test_speeds_differ_where_no_round_of_one_is_among_those_of_the_other(one, other, expected):
    assert ta.speeds_differ(one, other) is expected


def evaluated(model, reference) -> ta.EvalReport:
    evaluation = ta.EvaluationSet.from_token_ids(token_ids(model), name="ids")
    return ta.evaluate(model, evaluation, reference=reference)


@pytest.mark.slow
def test_a_report_tells_noise_from_a_difference(clock):
    dense = build("llama", torch.float32)
    smaller = pruned(dense)
    # the model, then its reference: reading 4 to 5 against 8 to 10 seconds, writing 4 to 6 against 5 to 7
    clock(*[((4 + turn / 4, 4 + turn / 2), (8 + turn / 2, 5 + turn / 2))[of] for turn in range(6) for of in (0, 1)])
    report = evaluated(smaller, dense)
    assert report.prefill_differs and not report.decode_differs
    assert report.prefill_spread[0] < report.prefill_tokens_per_second < report.prefill_spread[1]
    assert report.reference_prefill_flops_per_token > report.prefill_flops_per_token
    assert report.to_dict()["decode_spread"] == report.decode_spread
    assert "the output head at the prompt's last position alone" in report.protocol["speed"]
    table = summaries.measured(report, ta.EvaluationSet.from_token_ids(token_ids(dense), name="ids"))[1]
    reading, writing = (line for line in table.splitlines() if "tokens per second" in line)
    assert re.search(r"\(\d+ to \d+\) +\+\d+\.\d%$", reading)
    assert writing.endswith("none within the noise")


@pytest.mark.slow
def test_equal_shapes_never_differ(clock):
    dense = build("llama", torch.float32)
    clock(*[((1, 1), (5, 5))[of] for turn in range(6) for of in (0, 1)])
    report = evaluated(pruned(dense, groups=4, channels=40), dense)
    assert report.prefill_tokens_per_second == pytest.approx(5 * report.reference_prefill_tokens_per_second)
    assert report.prefill_differs is report.decode_differs is False
