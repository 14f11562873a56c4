"""Single answers: asked as a person would, and told apart by sign and word as well as colour."""

import re
from dataclasses import replace
from html import unescape

import pytest

import transact as ta
from ui.pages import answers
from ui.state.session import BUNDLED, Session, Tried
from ui.views.answers_table import answer, answers_table, question


def result(*given: tuple[str, bool]) -> ta.ProbeResult:
    items = tuple(
        ta.ProbeAnswer(f"1+1:1+1=2;2\n27+1{index}:", f"7+{index};{27 + 10 + index}\n", text, is_right)
        for index, (text, is_right) in enumerate(given)
    )
    return ta.ProbeResult("addition", sum(is_right for _, is_right in given), len(given), items)


DENSE = result(("7+0;37\n", True), ("7+1;38\n", True), ("7+2;40\n", False), ("7;<b>\n", False))
PRUNED = result(("7+0;37\n", True), ("7+1;33\n", False), ("7+2;39\n", True), ("", False))


def cells(html: str) -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", html)[1:]
    return [
        [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows
    ]


def test_what_was_lost_comes_first_and_then_what_was_gained():
    html = answers_table(DENSE, PRUNED, "Pruned")
    assert "Addition: 1 of 2 right answers lost, 1 gained." in html
    assert cells(html) == [
        ["27 + 11 = ?", "38 7+1", "✓right:  38 7+1", "✗wrong:  33 7+1"],
        ["27 + 12 = ?", "39 7+2", "✗wrong:  40 7+2", "✓right:  39 7+2"],
        ["27 + 13 = ?", "40 7+3", "✗wrong:  <b> 7", "✗wrong:  nothing"],
        ["27 + 10 = ?", "37 7+0", "✓right:  37 7+0", "✓right:  37 7+0"],
    ]
    assert "&lt;b&gt;" in html


def test_what_is_more_than_a_screen_is_folded():
    many = result(*[("x", True)] * 11)
    assert "<summary>The other 3</summary>" in answers_table(many, many, "Pruned")
    assert len(cells(answers_table(many, many, "Pruned"))) == 11 + 1  # a second head


@pytest.mark.parametrize("probe", ta.load_probes(), ids=lambda probe: probe.kind)
def test_every_task_is_asked_in_a_line_or_a_small_program(probe):
    for item in probe.items:
        asked = question(probe.kind, item.prompt)
        assert asked.strip() and len(asked) <= 112
        right, _ = answer(probe.kind, getattr(item, "answer", None) or item.good)
        assert right and "\n" not in right


def test_a_model_that_cannot_write_has_no_answer():
    assert answer("addition", None) == ("–", "")


def test_the_page_shows_the_task_that_lost_most_and_hides_where_nothing_was_answered():
    spec = ta.load(ta.BUNDLED).spec
    panel = answers.AnswersPanel("part", "of", "kind", "table")
    session = Session("me", BUNDLED, spec, None)
    assert answers.paint(panel, session) == {"part": {"visible": False, "__type__": "update"}}
    plan = ta.make_plan(ta.ImportanceScores.random(spec), spec, ta.PruningTarget(4, 400))
    whole = replace(DENSE, kind="recall", correct=4)
    pairs = ((DENSE, PRUNED), (whole, replace(PRUNED, kind="recall")))
    painted = answers.paint(panel, replace(session, tried=Tried(plan, "mixed", 1.5, 2.0, pairs)))
    assert painted["of"]["value"] == answers.TRIED and "Behind masks" in painted["table"]
    assert painted["kind"]["value"] == "recall"
    assert painted["kind"]["choices"][0] == ("addition: 2 → 2 of 4 right", "addition")
