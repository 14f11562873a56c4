"""Several settings worked off by one job: a result each, and a stop keeps those that are done."""

from dataclasses import replace

import pytest

import transact as ta
from ui.pages import queue
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Queued, Sampling, Session
from ui.text_sources import text_source
from ui.work import batch, scoring
from ui.work.registry import Registry
from ui.work.watch import Watch

FEW = text_source.TextSource("few", text_source.sample("stories").texts[:8], "pasted")
MEASURED = text_source.TextSource("measured", text_source.evaluation_sample("stories").texts[:4], "pasted")
SHARES = (0.1, 0.3, 0.5)


@pytest.fixture(scope="module")
def registry():
    return Registry()


@pytest.fixture(scope="module")
def session(registry) -> Session:
    """Three settings in the queue, and another one in view."""
    scored = scoring.score(registry, BUNDLED, FEW, Sampling(num_samples=8, seq_len=64), Watch("Scoring"))
    session = plan_of_choice.planned(Session("a", BUNDLED, scored.spec, scored, slider_steps.start(scored.spec)))
    queued = []
    for share in SHARES:
        chosen = plan_of_choice.chosen(session, replace(session.choice, mlp=share))
        queued.append(Queued(scored, chosen.choice, chosen.plan, "none", False))
    return replace(session, queue=tuple(queued), counted=4)


def test_each_setting_becomes_a_result(registry, session, untimed):
    steps = batch.steps(registry, session, MEASURED, writes=False, with_probes=False)
    watch, shown = Watch("Cutting the queue", steps), []
    watch.finds = shown.append
    watch.forecast.start()
    results = batch.work_off(registry, session, MEASURED, watch)
    assert [result.number for result in results] == [5, 6, 7]
    assert [result.choice.mlp for result in results] == list(SHARES)
    assert [result.plan for result in results] == [queued.plan for queued in session.queue]
    perplexities = [result.report.perplexity for result in results]
    assert perplexities == sorted(perplexities) and perplexities[0] < perplexities[-1]
    assert [len(each) for each in shown] == [1, 2, 3]
    assert watch.latest.steps == ("Setting 1", "Setting 2", "Setting 3") and watch.latest.number == 3
    assert watch.latest.share > 0.5
    assert len({registry.pruned("a", result.identity).spec.num_parameters for result in results}) == 3


def test_a_stop_keeps_what_is_done(registry, session, untimed):
    watch = Watch("Cutting the queue")
    begin, cuts = watch.says, []

    def says(title: str) -> None:
        if title.startswith("Cutting"):
            cuts.append(title)
            if len(cuts) == 2:
                watch.stop.set()
        begin(title)

    watch.says = says
    other = replace(session, id="b")
    results = batch.work_off(registry, other, MEASURED, watch)
    assert [(result.number, result.report is not None) for result in results] == [(5, True)]


def test_a_stop_while_measuring_keeps_that_cut_too(registry, session, untimed):
    watch = Watch("Cutting the queue")
    begin = watch.says

    def says(title: str) -> None:
        if title.startswith("Measuring"):
            watch.stop.set()
        begin(title)

    watch.says = says
    results = batch.work_off(registry, replace(session, id="c"), MEASURED, watch)
    assert [(result.number, result.report) for result in results] == [(5, None)]


def test_a_stop_before_anything_is_cut_keeps_nothing(registry, session):
    watch = Watch("Cutting the queue")
    watch.stop.set()
    with pytest.raises(ta.Cancelled):
        batch.work_off(registry, replace(session, id="d"), MEASURED, watch)


def test_the_list_says_what_each_will_take_away(session):
    assert queue.title(session) == "Cut these 3"
    assert "10 % of channels; none" in queue.queue_list(session)
    best = replace(session.queue[0], repair="best", search=True)
    assert queue.words(best).endswith("best, searched")
    assert "add each as it stands" in queue.queue_list(replace(session, queue=()))
