"""Every text of the page through a whole run: numbers as people read them, and one number for one quantity."""

import re
from collections.abc import Iterator
from dataclasses import replace

import gradio as gr
import numpy as np
import plotly.graph_objects as go
import pytest

import transact as ta
from ui import page_table
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Sampling, Session, Tried
from ui.state.view import Selection, View
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource
from ui.views import results_history
from ui.views.savings import savings
from ui.work import attention, measuring, pruning, scoring
from ui.work.registry import Registry
from ui.work.watch import Watch

pytestmark = pytest.mark.slow

BAD = {
    "a fraction in full": re.compile(r"(?<![\d.,])(?:[1-9]\d*\.\d{4,}|0\.0*[1-9]\d{4,})"),
    "a power of ten": re.compile(r"\d(?:\.\d+)?e[+-]?\d", re.IGNORECASE),
    "a plural of one": re.compile(
        r"(?<![\d.,#+−×/] )(?<![\d.,#+−×/])\b1 (?:sequences|tokens|heads|groups|head groups|channels|units|points|"
        r"layers|results|minutes|parameters|bytes)\b"
    ),
    "a name of the code": re.compile(r"\b(?:least_squares|head_groups|head_dims|keep_[a-z_]+|kv_[a-z_]+|mlp_[a-z]+)\b"),
    "a whole as a fraction": re.compile(r"\b1/1\b"),
    "digits without groups": re.compile(r"(?<![\d.,#\w])\d{5,}(?![\d.,\w])"),
}
"""What was seen on the page once, by kind."""


def run(registry: Registry, watch: Watch) -> Iterator[tuple[str, Session]]:
    """The sessions of a visitor who scores, looks, tries, cuts twice, measures, maps and checks."""
    spec = registry.dense(BUNDLED).spec
    session = Session("walk", BUNDLED, spec, None)
    yield "opened", session
    sampling = Sampling(num_samples=12, seq_len=48)
    first, second = (
        scoring.score(registry, BUNDLED, text_source.sample(name), sampling, watch) for name in ("mixed", "addition")
    )
    session = replace(session, scored=first, choice=slider_steps.start(spec))
    session = plan_of_choice.planned(session)
    yield "scored", session
    for unit in (Selection(2, head=3), Selection(4, channels=(7, 8))):
        yield "selected", replace(session, view=View(unit), second=second)
    session = replace(session, view=View(Selection(2, head=3)), second=second)
    session = replace(session, attention=attention.attention(registry, session, "Once upon a time", watch))
    text = _text()
    what_if = measuring.what_if(registry, session, text, watch, with_probes=True)
    session = replace(session, tried=Tried(session.plan, what_if.text, what_if.dense, what_if.masked))
    yield "tried", session
    session = replace(session, steadiness=measuring.steadiness(registry, session, watch))
    for number, repair in ((1, "least_squares"), (2, "none")):
        result = replace(pruning.cut(registry, session, repair, watch), number=number)
        if number == 1:
            yield "cut", session.with_result(result)
        session = session.with_result(measuring.measure(registry, "walk", result, text, watch, with_probes=True))
    yield "measured", session


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, Session]]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measuring, "PROBE_ITEMS", 8)
        return [*run(Registry(), Watch("walk"))]


@pytest.fixture(scope="module")
def panels():
    with gr.Blocks():
        return page_table.lay_out(Session("empty", BUNDLED, None, None))


_UNSEEN = ("bdata", "colorscale", "uirevision", "color", "bgcolor", "family", "template", "gridcolor")
"""What a figure holds that nobody reads."""


def words(value) -> Iterator[str]:
    """All texts in what a repainting gives: HTML without tags, choices, and every word of a figure."""
    if isinstance(value, go.Figure):
        yield from words_of_figure(value.to_plotly_json())
    elif isinstance(value, str):
        yield re.sub(r"<[^>]*>", " ", value)
        yield from re.findall(r'(?:title|aria-label)="([^"]*)"', value)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name == "choices":
                yield from (choice[0] if isinstance(choice, tuple) else choice for choice in each)
            elif name in ("label", "info", "placeholder") or (name == "value" and "choices" not in value):
                yield from words(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from words(each)


def words_of_figure(part) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for name, each in part.items():
            if name not in _UNSEEN:
                yield from words_of_figure(each)
    elif isinstance(part, (list, tuple)) or (isinstance(part, np.ndarray) and part.dtype == object):
        for each in part:
            yield from words_of_figure(each)


def test_no_text_of_a_run_has_a_number_that_people_would_not_write(stages, panels):
    found, seen = [], 0
    for stage, session in stages:
        painted = {}
        for tag in ("all", "selection", "results", "marks", "plan", "below", "followers"):
            painted |= panels.repaint(session, tag)
        for component, value in painted.items():
            if isinstance(component, (gr.Code, gr.Slider, gr.Number, gr.Radio)):
                continue  # code is code; a control holds a number, which gradio writes
            if component.elem_id in ("map-link", "settings-link"):
                continue  # for scripts, unseen
            for text in words(value):
                seen += 1
                found += [
                    (stage, component.elem_id, kind, match.group(0), text[max(0, match.start() - 40) :][:90])
                    for kind, pattern in BAD.items() for match in pattern.finditer(text)
                ]  # fmt: skip
    assert seen > 500
    assert not found, "\n".join(map(str, dict.fromkeys(found)))


def test_what_was_seen_once_would_be_found():
    seen = (
        "0.333333 of it",
        "score 1.18e+03",
        "all 1 sequences",
        "Repair least_squares",
        "moves by 1/1",
        "12345 tokens",
    )
    for text in seen:
        assert sum(bool(pattern.search(text)) for pattern in BAD.values()) == 1, text
    fine = (
        "0.333 of it",
        "score 1,180",
        "all 1 sequence",
        "least squares",
        "in steps of 1 of 4 groups",
        "12,345 tokens",
    )
    for text in fine:
        assert not any(pattern.search(text) for pattern in BAD.values()), text


def test_one_quantity_is_one_number_wherever_it_stands(stages, panels, tmp_path):
    session = stages[-1][1]
    first = session.results[0]
    report, tried = first.report, session.tried
    assert report.reference_perplexity == pytest.approx(tried.dense, rel=1e-6)
    uncut = ta.evaluate(ta.load("bundled"), _evaluation(), speed=False)
    assert uncut.perplexity == pytest.approx(tried.dense, rel=1e-6)
    (point,) = ta.sweep(ta.load("bundled"), session.scored.scores["transact"], [_target(session)], _evaluation())
    assert point.plan.layers == tried.plan.layers
    assert point.perplexity == pytest.approx(tried.masked, rel=1e-6)
    cut_alone = session.results[1].report.perplexity  # no repair: the cut computes what the mask showed
    assert cut_alone == pytest.approx(tried.masked, rel=1e-4)

    costs = first.plan.summary()
    for when, of in (("before", "reference_"), ("after", "")):
        for name in ("parameters", "flops_per_token", "kv_bytes_per_token"):
            assert getattr(report, of + name) == costs[when][name], name
    ta.save(ta.prune(ta.load("bundled"), first.plan), tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert f"| {costs['before']['kv_bytes_per_token']:,} | {costs['after']['kv_bytes_per_token']:,} |" in card
    painted = panels.repaint(session, "all")
    for saving in savings(first.plan):
        for panel in (panels.measure.table, panels.cut.savings):
            assert saving.before in painted[panel] and saving.after in painted[panel], (saving.label, panel.elem_id)
    shown = {column.name: column.cell(session.latest) for column in results_history.columns(session.results)}
    for name in ("kv_bytes_per_token", "parameters", "perplexity", "perplexity_times_dense", "reference_perplexity"):
        assert shown[name] in painted[panels.measure.table], name
        assert shown[name] in painted[panels.compare.table], name
    assert shown["perplexity_times_dense"] in painted[panels.cut.verdict]


def _text() -> TextSource:
    """A few sequences of the held-out sample."""
    sample = text_source.evaluation_sample("mixed")
    return replace(sample, texts=sample.texts[:16])


def _evaluation() -> ta.EvaluationSet:
    return measuring.evaluation_set(_text(), ta.load("bundled"))


def _target(session: Session) -> ta.PruningTarget:
    return plan_of_choice.target(session.spec, session.choice)
