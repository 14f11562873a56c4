"""Scores while text passes: those of what was read, kept by a stop, and taken back where the rest fails."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import transact as ta
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Sampling, Scored, Session
from ui.text_sources.text_source import TextSource, as_jsonl
from ui.views.python_code import Recipe, code
from ui.work import pruning, scoring
from ui.work.registry import Registry
from ui.work.watch import Watch

LINE = "One day, a little fox went to the river to look at the fish. "
TEXT = TextSource("tales", tuple(LINE * (3 + number % 40) for number in range(60)), "pasted")
SAMPLING = Sampling(num_samples=60, seq_len=200)


class Stopping(Watch):
    """Stops the work at the scores of that number."""

    def __init__(self, at: int):
        super().__init__("Scoring")
        self.at, self.seen = at, []

    def finds(self, value) -> None:
        super().finds(value)
        self.seen.append(value)
        if len(self.seen) == self.at:
            self.stop.set()


@pytest.fixture(scope="module")
def registry():
    registry = Registry()
    registry.dense(BUNDLED, Watch("Loading"))
    return registry


@pytest.fixture
def often(monkeypatch):
    """Scores after every batch."""
    monkeypatch.setattr(scoring, "_SHOWN_SECONDS", 0.0)


def run(registry, at: int) -> tuple[Scored, list[Scored]]:
    watch = Stopping(at)
    return scoring.score(registry, BUNDLED, TEXT, SAMPLING, watch, in_parts=True), watch.seen


@pytest.fixture(scope="module")
def part(registry) -> Scored:
    return run(registry, 1)[0]


def test_a_stop_keeps_the_scores_of_what_was_read(registry, part):
    loaded = registry.in_memory(BUNDLED)
    assert part.is_part and 0 < part.num_tokens <= 1024 and "the longest" in part.calibration.protocol
    alone = ta.observe(loaded, part.calibration, top_k=8, samples=True, queries=True)
    assert part.scores.keys() == set(ta.available_metrics(alone))
    for metric, scores in part.scores.items():
        expected = ta.score(loaded, alone, metric=metric)
        assert all(map(torch.equal, scores.mlp_channels + scores.heads, expected.mlp_channels + expected.heads))
    assert registry.scored(BUNDLED, TEXT, SAMPLING) is None


def test_the_shown_lines_read_as_much(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("calibration.jsonl").write_text(as_jsonl(TEXT), encoding="utf-8")
    session = plan_of_choice.planned(Session("a", BUNDLED, part.spec, part, slider_steps.start(part.spec)))
    lines = code(Recipe.of_plan(part, session.choice, session.plan))
    assert (
        f"calibration = calibration.longest({part.num_samples})\nstatistics = ta.observe(loaded, calibration" in lines
    )
    names: dict = {}
    exec(lines.split("\n\nta.save")[0], names)
    assert names["plan"].digest == session.plan.digest


def test_a_repair_works_from_what_was_read(registry, part):
    seen, observe = [], ta.observe
    session = plan_of_choice.planned(Session("a", BUNDLED, part.spec, part, slider_steps.start(part.spec)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ta, "observe", lambda loaded, text, **named: seen.append(text) or observe(loaded, text, **named))
        pruning.cut(registry, session, "least_squares", Watch("Cutting"))
        whole = scoring.score(registry, BUNDLED, TEXT, SAMPLING, Watch("Scoring"))
        session = plan_of_choice.planned(replace(session, scored=whole))
        pruning.cut(registry, session, "least_squares", Watch("Cutting"))
    assert [text.num_samples for text in seen] == [part.num_samples, 60, 60]


def test_undisturbed_it_comes_to_the_same_scores_as_before(registry, often):
    plain = scoring.score(Registry(), BUNDLED, TEXT, SAMPLING, Watch("Scoring"))
    registry._scored.drop(lambda key: True)
    whole, seen = run(registry, at=1000)
    assert not whole.is_part and whole.num_samples == 60
    assert len(seen) > 3 and all(each.is_part for each in seen)
    assert [each.num_samples for each in seen] == sorted({each.num_samples for each in seen})
    for metric, scores in whole.scores.items():
        for one, other in zip(scores.mlp_channels, plain.scores[metric].mlp_channels, strict=True):
            assert torch.equal(one, other)
    assert registry.scored(BUNDLED, TEXT, SAMPLING) is whole


def test_nothing_is_kept_where_nothing_was_read(registry):
    watch = Watch("Scoring")
    watch.stop.set()
    registry._scored.drop(lambda key: True)
    with pytest.raises(ta.Cancelled):
        scoring.score(registry, BUNDLED, TEXT, SAMPLING, watch, in_parts=True)


def test_scores_so_far_are_one_step_of_undo(part, registry):
    whole = scoring.score(registry, BUNDLED, TEXT, SAMPLING, Watch("Scoring"))
    other = replace(whole, text=replace(TEXT, name="others"))
    before = plan_of_choice.planned(Session("a", BUNDLED, part.spec, other, slider_steps.start(part.spec)))
    first = plan_of_choice.rescored(before, part)
    later = plan_of_choice.rescored(first, whole, instead_of=part)
    assert len(later.timeline.past) == len(first.timeline.past) == 1
    assert plan_of_choice.undone(later).scored is other
    back = plan_of_choice.taken_back(first, part, before)
    assert back.scored is other and back.timeline == before.timeline and back.plan == before.plan
    assert plan_of_choice.taken_back(later, part, before) is later
