"""The strip's numbers against the published ones, and how numbers are written."""

import pytest
from transformers import Gemma3TextConfig, LlamaConfig

import transact as ta
from ui import numbers
from ui.budgets import BUDGETS
from ui.savings import savings, strip


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
    [(6.0804, "6.080"), (None, "–"), (float("inf"), "∞"), (float("nan"), "undefined"), (5e8, "5e+08")],
)
def test_figures(value, shown):
    assert numbers.figure(value) == shown


def test_signed():
    assert numbers.signed(0.5) == "+0.500"
    assert numbers.signed(-0.5) == "−0.500"
