"""The numbers of iterative pruning, by hand."""

import pytest

import transact as ta
from tests.tiny_models import build
from transact.schedule import shot_tokens


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


def test_one_shot_takes_all_its_tokens_at_once():
    assert shot_tokens(1, ta.RecoverySettings(shots=1, shot_tokens=123)) == 123
    even = ta.RecoverySettings(shots=4, shot_tokens=400, first_shot_share=1.0)
    assert [shot_tokens(number, even) for number in range(1, 5)] == [100] * 4


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
        ({"batch_size": 4, "micro_batch_size": 5}, "1 to batch_size, 4"),
    ],
)
def test_what_cannot_be_is_refused(wrong, said):
    with pytest.raises(ta.InvalidOption, match=said):
        ta.RecoverySettings(**wrong)
