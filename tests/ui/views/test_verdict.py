"""The verdict on the plan in view: from nothing known, through masks, to a measured result."""

from dataclasses import replace

import pytest
from transformers import LlamaConfig

import transact as ta
from tests.ui.views.test_result_tables import REPORT
from ui.state.session import BUNDLED, Choice, Result, Sampling, Scored, Session, Tried
from ui.text_sources.text_source import TextSource
from ui.views.verdict import mood_of, verdict

SPEC = ta.ModelSpec.from_config(
    LlamaConfig(
        hidden_size=16, num_attention_heads=4, head_dim=4, num_hidden_layers=2, intermediate_size=8, vocab_size=32
    )
)
TEXT = TextSource("stories", ("x",), "sample")
SCORED = Scored(BUNDLED, SPEC, TEXT, Sampling(), None, None, 0.1, None, {})


def plan(channels: int) -> ta.PruningPlan:
    return ta.make_plan(ta.ImportanceScores.random(SPEC), SPEC, ta.PruningTarget(3, channels))


def result(**changes) -> Result:
    return replace(Result(1, SCORED, Choice(), plan(4), "best", REPORT, TEXT), **changes)


@pytest.mark.parametrize(
    ("dense", "pruned", "mood"),
    [(10, 10, "good"), (10, 12.4, "good"), (10, 12.5, "fair"), (10, 20, "ruined"), (10, float("inf"), "ruined"),
     (10, float("nan"), "ruined")],
)  # fmt: skip
def test_a_ruined_model_is_never_green(dense, pruned, mood):
    assert mood_of(dense, pruned) == mood


def test_from_nothing_known_to_measured():
    session = Session("visitor", BUNDLED, SPEC, SCORED)
    assert "Nothing is chosen" in verdict(session)
    session = replace(session, plan=plan(8))
    assert "Nothing would be removed" not in verdict(session)  # a head group goes
    session = replace(session, plan=plan(4))
    assert "not known yet" in verdict(session)

    session = replace(session, tried=Tried(plan(4), "stories", 6.0, 18.0))
    assert verdict(session).startswith('<p class="verdict ruined"><b>Behind masks: perplexity × 3.00</b> on stories')
    assert "not known yet" in verdict(replace(session, plan=plan(5)))  # tried was another one

    session = session.with_result(result(report=None))
    assert "has not been measured" in verdict(session)
    probes = (("stories", 1.0, 0.98), ("addition", 0.42, 0.3), ("recall", 0.9, 0.5))
    session = session.with_result(result(probes=probes))
    assert verdict(session) == (
        '<p class="verdict good"><b>Measured: perplexity × 1.08</b> on stories, recall 90 % → 50 %, '
        "reads 2.00 × as fast ± 0.20</p>"
    )
    moved = verdict(replace(session, plan=plan(5)))
    assert "not known yet" in moved and "The last result: perplexity × 1.08." in moved


def test_speeds_that_do_not_differ_are_said_to_be_the_same():
    session = Session("visitor", BUNDLED, SPEC, SCORED, plan=plan(4))
    same = replace(REPORT, prefill_differs=False)
    assert "as fast as before, within the noise" in verdict(session.with_result(result(report=same)))
    untimed = replace(REPORT, prefill_tokens_per_second=None)
    assert "fast" not in verdict(session.with_result(result(report=untimed)))


def test_a_perplexity_names_its_text_and_how_much_of_it():
    protocol = "stories: 100 sequences, 9,876 tokens; each text one sequence, BOS in each sequence, cut at 512"
    session = Session("visitor", BUNDLED, SPEC, SCORED, plan=plan(4)).with_result(result(protocol=protocol))
    shown = verdict(session)
    assert f'on <span title="{protocol}">stories: 100 sequences, 9,876 tokens</span>' in shown
    tried = replace(session, results=(), tried=Tried(plan(4), "stories", 6.0, 18.0, protocol=protocol))
    assert "BOS in each sequence" in verdict(tried) and "9,876 tokens</span>, before any repair" in verdict(tried)
