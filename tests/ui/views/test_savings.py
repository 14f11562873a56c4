"""The strip's numbers against the published ones, and how numbers are written."""

import pytest
from transformers import Gemma3TextConfig, LlamaConfig

import transact as ta
from transact.spec.target import kept_count
from transact.wording import counted
from ui.format import numbers
from ui.state import slider_steps
from ui.state.budgets import BUDGETS
from ui.views.savings import savings, strip


@pytest.fixture(scope="module")
def llama() -> ta.ModelSpec:
    return ta.ModelSpec.from_config(
        LlamaConfig(
            hidden_size=4096, num_attention_heads=32, num_hidden_layers=32, intermediate_size=11008, vocab_size=32000
        )
    )


def test_llama_2_7b_to_its_published_form(llama):
    plan = ta.make_plan(
        ta.ImportanceScores.random(llama), llama, ta.PruningTarget(keep_head_groups=6, keep_channels=1536)
    )
    shown = {saving.label: (saving.before, saving.after) for saving in savings(plan)}
    assert shown["Weights"] == ("6.74 B", "1.27 B")
    assert shown["Memory/token"] == ("524 kB", "98.3 kB")  # 512 KiB and 96 KiB
    assert "−81.2 %" in strip(plan)


def test_nothing_removed_saves_nothing(llama):
    plan = ta.make_plan(
        ta.ImportanceScores.random(llama), llama, ta.PruningTarget(keep_head_groups=32, keep_channels=11008)
    )
    assert all(saving.removed == 0 for saving in savings(plan))
    assert "±0 %" in strip(plan)


def test_where_windows_end_the_growth_the_strip_and_the_memory_limit_count_them():
    """Gemma 3 270m: 108.5 MB of cache at 32,768 tokens, not 604."""
    spec = ta.ModelSpec.from_config(
        Gemma3TextConfig(
            vocab_size=262_144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
            num_key_value_heads=1, head_dim=256, sliding_window=512, max_position_embeddings=32_768,
        )
    )  # fmt: skip
    plan = ta.make_plan(ta.ImportanceScores.random(spec), spec, ta.PruningTarget(1, 1024))
    shown = {saving.label: (saving.term, saving.before, saving.after) for saving in savings(plan)}
    assert shown["Memory"] == ("KV cache of 32,768 tokens", "109 MB", "109 MB")
    assert "Memory/token" not in shown
    # the limit counts a context of 4,096
    assert BUDGETS["memory"].amount(spec) == 2 * spec.num_parameters + 2 * 2 * 256 * (15 * 512 + 3 * 4096)


def test_without_a_plan_the_strip_says_what_to_do():
    assert "Score the model" in strip(None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (260_032, "260 k"), (999_600, "1.00 M"), (1.269e9, "1.27 B")],
)
def test_counts(value, shown):
    assert numbers.count(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(512, "512 B"), (5_624_320, "5.62 MB"), (13.5e9, "13.5 GB")])
def test_sizes(value, shown):
    assert numbers.size(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "1 s"), (59.2, "1 min 0 s"), (131, "2 min 11 s"), (3900, "1 h 5 min")]
)
def test_durations(seconds, shown):
    assert numbers.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (6.0804, "6.08"), (None, "–"), (float("inf"), "∞"), (float("nan"), "undefined"), (5e8, "500,000,000"),
        (0.0, "0"), (1e-9, "0"), (0.00042, "0.000420"), (9.996, "10.0"), (999.6, "1,000"), (1180.4, "1,180"),
        (0.9996, "1.00"), (123456.0, "123,000"), (-0.5, "−0.500"), (3e30, "over 1,000,000,000,000"),
    ],
)  # fmt: skip
def test_figures(value, shown):
    assert numbers.figure(value) == shown


def test_signed():
    assert numbers.signed(0.5) == "+0.500"
    assert numbers.signed(-0.5) == "−0.500"
    assert numbers.signed(0.0) == "±0"


def test_differences():
    assert numbers.factor(6.0, 7.8) == "× 1.30" and numbers.factor(0, 1) == "–"
    assert numbers.change(200, 25) == "−87.5 %" and numbers.change(1, 31.5) == "+3,050.0 %"
    assert numbers.change(3, 3) == numbers.change(3, 3 - 1e-9) == "±0 %"
    shown = [numbers.points(difference) for difference in (-0.45, 0.01, 0.125, 0.0, -1e-9)]
    assert shown == ["−45 points", "+1 point", "+12.5 points", "±0 points", "±0 points"]


def test_one_is_no_plural():
    assert [counted(number, "sequence") for number in (0, 1, 1200)] == [
        "0 sequences", "1 sequence", "1,200 sequences",
    ]  # fmt: skip


def test_the_strip_says_how_each_number_is_counted(llama):
    plan = ta.make_plan(ta.ImportanceScores.random(llama), llama, ta.PruningTarget(6, 1536))
    for protocol in ("FLOPs at a context of 512", "KV cache, 2 bytes a value", "checkpoint, 2 bytes a weight"):
        assert f'title="{protocol}"' in strip(plan)
    rounded_away = ta.make_plan(ta.ImportanceScores.random(llama), llama, ta.PruningTarget(32, 11007))
    assert "−0.0 %" not in strip(rounded_away)


@pytest.mark.parametrize("units", [*range(1, 33), 48, 64, 96, 128])
def test_steps_of_the_attention_slider_are_whole_units_in_few_digits(units):
    """Every position keeps exactly as many units as it says, and is written without a row of threes."""
    step = slider_steps.attention_step(units)
    assert units > 32 or len(str(step)) <= len("0.123")
    for removed in range(units):
        assert kept_count(units, 1 - round(removed * step, 6)) == units - removed
