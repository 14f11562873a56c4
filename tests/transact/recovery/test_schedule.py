"""The numbers of iterative pruning, by hand."""

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

import transact as ta
from tests.tiny_models import build
from transact.recovery.schedule import rate_share, shot_tokens


def test_the_papers_schedule_on_its_own_model():
    """LLaMA-2-7B from 32 heads and 11,008 channels to 16 and 3,072 in 8 shots."""
    spec = ta.ModelSpec.from_dict(
        {
            **build("llama-multi-head").spec.to_dict(),
            "layers": [{"num_attention_heads": 32, "num_key_value_heads": 32, "intermediate_size": 11008}] * 3,
        }
    )
    settings = ta.RecoverySettings()
    *shots, recovery = ta.phases(spec, ta.PruningTarget(16, 3072), settings)
    assert [shot.target.keep_head_groups for shot in shots] == [30, 28, 26, 24, 22, 20, 18, 16]
    assert [shot.target.keep_channels for shot in shots] == [11008 - 992 * number for number in range(1, 9)]
    assert shots[0].tokens == 62_500_000 and shots[7].tokens == 187_500_000
    assert sum(shot.tokens for shot in shots) == pytest.approx(1e9, abs=8)
    assert shots[0].learning_rate == pytest.approx(5e-5 * 2 / 8)
    assert shots[7].learning_rate == pytest.approx(1e-4)
    assert (recovery.target, recovery.tokens, recovery.learning_rate) == (None, 50_000_000_000, 5e-5)
    assert (settings.warmup, settings.adam_beta1, settings.adam_beta2, settings.batch_size) == (0.1, 0.9, 0.95, 64)


def test_what_does_not_divide_goes_a_little_later():
    """Each shot removes (what is left) // (shots left): 4 groups to 1 in two, 40 channels to 7 in four shots."""
    spec = build("llama").spec
    two = ta.phases(spec, ta.PruningTarget(1, 7), ta.RecoverySettings(shots=2))
    assert [phase.target.keep_head_groups for phase in two[:2]] == [3, 1]
    four = ta.phases(spec, ta.PruningTarget(4, 7), ta.RecoverySettings(shots=4))
    assert [phase.target.keep_channels for phase in four[:4]] == [32, 24, 16, 7]
    assert {phase.target.keep_head_groups for phase in four[:4]} == {4}


def test_heads_inside_groups_go_in_shots_too():
    spec = build("llama").spec  # groups of two heads
    phases = ta.phases(spec, ta.PruningTarget(4, 40, keep_heads_per_group=1), ta.RecoverySettings(shots=2))
    assert [phase.target.keep_heads_per_group for phase in phases[:2]] == [2, 1]
    assert ta.phases(spec, ta.PruningTarget(4, 40), ta.RecoverySettings(shots=1))[0].target.keep_heads_per_group is None


def test_layers_of_different_sizes():
    found = ta.phases(build("llama").spec, ta.PruningTarget((4, 2, 1), 10), ta.RecoverySettings(shots=3))
    assert [phase.target.keep_head_groups for phase in found[:3]] == [(4, 4, 3), (4, 3, 2), (4, 2, 1)]


def test_one_shot_is_not_trained_in():
    """K = 1 is one-shot: `shot_tokens` are for the training between the shots, and there is no second one."""
    shot, recovery = ta.phases(build("llama").spec, ta.PruningTarget(2, 20), ta.RecoverySettings(shots=1))
    assert (shot.tokens, recovery.tokens) == (0, 50_000_000_000)


def test_tokens_rise_from_shot_to_shot():
    rising = ta.RecoverySettings(shots=4, shot_tokens=400, first_shot_share=0.5)
    assert [shot_tokens(number, rising) for number in range(1, 5)] == [50, 83, 117, 150]
    even = ta.RecoverySettings(shots=4, shot_tokens=400, first_shot_share=1.0)
    assert [shot_tokens(number, even) for number in range(1, 5)] == [100] * 4


@pytest.mark.parametrize(
    ("scheduler", "warmup", "steps", "expected"),
    [
        ("linear", 0.1, 1, [1]),
        ("linear", 0.1, 4, [1, 3 / 4, 2 / 4, 1 / 4]),
        ("linear", 0.5, 4, [1 / 2, 1, 2 / 3, 1 / 3]),
        ("linear", 0.0, 2, [2 / 2, 1 / 2]),
        ("linear", 1.0, 4, [1 / 4, 2 / 4, 3 / 4, 1]),
        ("cosine", 0.25, 4, [1, (1 + 0.5**0.5) / 2, 1 / 2, (1 - 0.5**0.5) / 2]),
        ("constant_with_warmup", 0.5, 4, [1 / 2, 1, 1, 1]),
    ],
)
def test_rates_by_hand_and_none_of_them_is_zero(scheduler, warmup, steps, expected):
    settings = ta.RecoverySettings(scheduler=scheduler, warmup=warmup)
    assert [rate_share(step, steps, settings) for step in range(1, steps + 1)] == pytest.approx(expected)
    for many in range(1, 200):
        assert all(0 < rate_share(step, many, settings) <= 1 for step in range(1, many + 1))


@pytest.mark.parametrize(
    ("scheduler", "schedule"),
    [
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
        ("constant_with_warmup", get_constant_schedule_with_warmup),
    ],
)
def test_rates_are_those_of_transformers_without_the_first_which_is_zero(scheduler, schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    whole = {} if scheduler == "constant_with_warmup" else {"num_training_steps": 31}
    theirs = schedule(optimizer, num_warmup_steps=3, **whole).lr_lambdas[0]
    settings = ta.RecoverySettings(scheduler=scheduler, warmup=0.1)
    assert theirs(0) == 0
    assert [rate_share(step, 30, settings) for step in range(1, 31)] == pytest.approx([theirs(n) for n in range(1, 31)])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shots": 0}, "shots is 0"),
        ({"recovery_tokens": -1}, "recovery_tokens is -1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"warmup": 1.5}, "from 0 to 1"),
        ({"loss": "hope"}, "language_model, distillation"),
        ({"compensation": "bias"}, "none, least_squares, best"),
        ({"metric": "luck"}, "search"),
        ({"batch_size": 4, "micro_batch_size": 5}, "whole number from 1 to 4"),
        ({"shots": 10**12}, "shots is 1000000000000; give a whole number from 1 to 1000"),
        ({"shots": 1e12}, "shots is 1000000000000.0; give a whole number"),
        ({"shot_tokens": 10**16}, "from 0 to 1000000000000000"),
        ({"recovery_tokens": 10**5000}, "recovery_tokens is a number of many digits"),
        ({"batch_size": 10**12}, "batch_size is 1000000000000"),
        ({"lora_rank": 10**12}, "lora_rank is 1000000000000"),
        ({"learning_rate": 10**400}, "learning_rate is a number of many digits"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"temperature": True}, "temperature is True"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"warmup": None}, "warmup is None"),
        ({"loss": None}, "no loss named None"),
        ({"scheduler": ["linear"]}, r"no scheduler named \['linear'\]"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(ta.InvalidOption, match=said):
        ta.RecoverySettings(**wrong)


def test_the_most_shots_are_laid_out_and_a_stop_ends_it_between_two():
    spec, settings = build("llama").spec, ta.RecoverySettings(shots=1000)
    assert len(ta.phases(spec, ta.PruningTarget(2, 20), settings)) == 1001
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise ta.Cancelled

    for work in (ta.phases, ta.recovery_cost):
        calls = 0
        named = {"seq_len": 8} if work is ta.recovery_cost else {}
        with pytest.raises(ta.Cancelled):
            work(spec, ta.PruningTarget(2, 20), settings, check=check, **named)
        assert calls == 3
