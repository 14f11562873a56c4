"""What is told before the click: from the machine's speed, longer for more work, and learned from what was done."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

import transact as ta
from ui.events import times
from ui.format import numbers
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Result, Sampling, Session
from ui.text_sources import text_source
from ui.work import job_steps, scoring
from ui.work.registry import Registry
from ui.work.speeds import Speeds
from ui.work.watch import Watch

TEXT = text_source.evaluation_sample("mixed")


@pytest.fixture(scope="module")
def registry():
    return Registry()


@pytest.fixture(scope="module")
def session(registry) -> Session:
    few = text_source.TextSource("few", text_source.sample("stories").texts[:8], "pasted")
    scored = scoring.score(registry, BUNDLED, few, Sampling(num_samples=8, seq_len=64), Watch("Scoring"))
    session = plan_of_choice.planned(Session("a", BUNDLED, scored.spec, scored, slider_steps.start(scored.spec)))
    return replace(session, results=(Result(1, scored, session.choice, session.plan, "none"),))


@pytest.fixture
def slow(registry, monkeypatch):
    """A machine a thousand times as slow as a large processor core."""
    monkeypatch.setattr(registry, "speeds", Speeds())
    registry.speeds.note_forward(BUNDLED, 1e8, 1.0)


def seconds(steps) -> float:
    return job_steps.seconds(steps)


def test_more_work_takes_longer(registry, session, slow):
    cut = {
        (repair, search): seconds(job_steps.cutting(registry, session, repair, search=search))
        for repair in ta.REPAIRS
        for search in (False, True)
    }
    assert cut["best", True] > cut["best", False] > cut["least_squares", False] > cut["none", False]
    assert cut["none", True] == cut["none", False]
    plain = {"writes": False, "with_probes": False}
    measured = seconds(job_steps.measuring(registry, session.scored, TEXT, **plain))
    assert seconds(job_steps.measuring(registry, session.scored, TEXT, writes=True, with_probes=True)) > measured
    half = replace(TEXT, texts=TEXT.texts[: len(TEXT.texts) // 2])
    assert seconds(job_steps.measuring(registry, session.scored, half, **plain)) < measured
    assert seconds(job_steps.trying(registry, session.scored, TEXT, **plain)) < measured
    assert seconds(job_steps.mapping(registry, session.scored, TEXT)) > measured
    for file_type in ("f16", "f32"):
        assert seconds(job_steps.gguf(registry, session.latest, file_type)) > 0


def test_nothing_is_told_of_a_model_that_was_not_timed(registry, session, monkeypatch):
    monkeypatch.setattr(registry, "speeds", Speeds())
    assert job_steps.seconds(job_steps.cutting(registry, session, "best", search=True)) is None
    registry.time(BUNDLED, Watch("Loading"))
    assert seconds(job_steps.cutting(registry, session, "best", search=True)) > 0


def test_what_a_step_took_is_what_it_will_take(registry, session, slow):
    (before,) = job_steps.cutting(registry, session, "none", search=False)
    registry.speeds.learn([(before, 50.0)])
    (after,) = job_steps.cutting(registry, session, "none", search=False)
    assert after.seconds == pytest.approx(50.0)
    half = replace(before, work=before.work / 2)
    registry.speeds.learn([(half, 50.0)])
    assert job_steps.cutting(registry, session, "none", search=False)[0].seconds == pytest.approx(80.0)


def test_text_is_counted_nearly_without_a_tokenizer(registry, session):
    loaded = registry.in_memory(BUNDLED)
    evaluation = text_source.evaluation_set(TEXT, loaded, seq_len=512)
    per_token = float(loaded.spec.flops_per_token(context=256))
    told = job_steps._measured(session.scored, TEXT) / per_token
    assert told == pytest.approx(evaluation.num_tokens, rel=0.5)


def test_the_buttons_say_so_and_follow_the_settings(registry, session, slow):
    context = SimpleNamespace(
        registry=registry, visitor=lambda request: "a", sessions=SimpleNamespace(get=lambda owner: session)
    )

    def button(name: str) -> gr.Button:
        with gr.Blocks():
            return gr.Button(name)

    panels = SimpleNamespace(
        cut=SimpleNamespace(try_button=button("Try"), prune=button("Prune"), measure=button("Measure again")),
        redundancy=SimpleNamespace(draw=button("Map")),
        trust=SimpleNamespace(check=button("Check")),
        takeaway=SimpleNamespace(checkpoint=button("Zip"), gguf=button("GGUF")),
        queue=SimpleNamespace(start=button("Cut these")),
    )
    labels = []
    for fields in (
        ("best", True, "mixed", "quick", "f16"), ("best", True, "addition", "quick", "f16"),
        ("best", True, "paste", "full", "nonsense"),
    ):  # fmt: skip
        shown = times.on_change(context, panels, None, *fields)
        labels.append([update["value"] for update in shown.values()])
    first, second, third = labels
    assert first[0].startswith("Try (") and first[1].startswith("Prune (") and first[5].startswith("Zip (")
    assert first[0] != second[0] and first[1] != second[1]
    assert third[:2] == ["Try", "Prune"]  # a paste that is still empty


def test_a_time_that_is_only_expected_is_round():
    told = {4.6: "5 s", 9.6: "10 s", 41: "40 s", 58: "1 min", 170: "3 min", 4000: "1 h 10 min", 7200: "2 h"}
    assert {seconds: numbers.about(seconds) for seconds in told} == told
