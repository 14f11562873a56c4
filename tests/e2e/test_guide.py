"""The lessons: each asks, sets the page's own controls, reveals, and covers nothing of what it speaks of."""

import pytest

from tests.e2e.explorer import SLOW, Explorer
from ui.views.lessons import LESSONS

IN_VIEW = """id => {
  const box = document.getElementById(id).getBoundingClientRect();
  const card = document.getElementById("guide").getBoundingClientRect();
  const below = Math.min(box.bottom, box.top + 60);
  const apart = box.right <= card.left || box.left >= card.right || below <= card.top || box.top >= card.bottom;
  const over = document.elementFromPoint((box.left + box.right) / 2, (box.top + below) / 2);
  return apart && box.top >= 0 && below <= innerHeight && document.getElementById(id).contains(over);
}"""
"""Whether the target, or its beginning, is seen beside the card, above or below it, with nothing in front."""
REVEAL = """option => {
  const lesson = document.querySelector("#guide article:not([hidden])");
  lesson.querySelector(`[data-option='${option}']`).click();
  return !lesson.querySelector(".lesson-reveal").hidden;
}"""
"""Predict; whether the answer is there at once, for which no server is asked."""


def answer(explorer: Explorer, number: int, option: int | None = None) -> None:
    """Predict (by default what is right); the answer must stand there at once."""
    lesson = LESSONS[number - 1]
    page = explorer.page
    page.wait_for_selector(f"#guide article:visible :text-is('{lesson.title}')", timeout=SLOW)
    explorer.wait_until(IN_VIEW, arg=lesson.target)
    assert not page.is_visible("#guide article:visible .lesson-reveal")
    chosen = lesson.right if option is None else option
    assert page.evaluate(REVEAL, chosen)
    verdict = page.inner_text("#guide article:visible .lesson-verdict")
    assert ("so it is" in verdict) == (chosen == lesson.right) and lesson.options[lesson.right] in verdict
    explorer.wait_until(IN_VIEW, arg=lesson.target)
    assert page.evaluate("document.querySelectorAll('.guided').length") == 1


def sliders(explorer: Explorer) -> tuple[float, float]:
    return tuple(
        float(explorer.value(slider, "input[type=number]")) for slider in ("attention-sparsity", "mlp-sparsity")
    )


def test_lessons_ask_press_reveal_and_hand_over(explorer):
    page = explorer.page
    before = sliders(explorer)
    page.click("#guide-open")
    for number, lesson in enumerate(LESSONS, start=1):
        answer(explorer, number, 0 if number == 1 else None)
        wanted = [lesson.press.attention, lesson.press.mlp]
        explorer.wait_until(
            "wanted => ['attention-sparsity', 'mlp-sparsity'].every((id, at) =>"
            " Number(document.querySelector(`#${id} input[type=number]`).value) === wanted[at])",
            arg=wanted,
        )
        explorer.says("Set by the lesson")
        if number == 2:  # the head is off in the live text
            explorer.reads("live-masked", "selected unit off")
        assert f"lesson={number}" in page.url
        if number < len(LESSONS):
            page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f"#guide article:visible :text-is('{LESSONS[-2].title}')", timeout=SLOW)
    page.keyboard.press("Escape")
    page.wait_for_selector("#guide", state="hidden", timeout=SLOW)
    assert page.evaluate("document.activeElement.id") == "guide-open" and "lesson" not in page.url
    assert page.evaluate("document.querySelectorAll('.guided').length") == 0
    # what was set can be undone, up to where the visitor was
    for _ in LESSONS:
        if sliders(explorer) != before:
            explorer.after_change("choice-note", lambda: page.click("#undo-button"))
    assert sliders(explorer) == before


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_link_opens_a_lesson_in_the_middle_on_a_phone_without_scrolling_in_it(browser, app_url, theme):
    for number in range(1, len(LESSONS) + 1):
        explorer = Explorer(browser, app_url, width=390, theme=theme, query=f"lesson={number}")
        answer(explorer, number)
        scrolls = "(card => card.scrollHeight > card.clientHeight + 1)(document.getElementById('guide'))"
        assert not explorer.page.evaluate(scrolls), LESSONS[number - 1].title
        assert explorer.page.evaluate("document.getElementById('guide').offsetHeight / innerHeight") < 0.63
        assert not explorer.errors
        explorer.close()


@pytest.mark.long
def test_large_type_comes_with_the_link_and_covers_nothing(browser, app_url):
    explorer = Explorer(browser, app_url, query="lesson=6&large=1")
    page = explorer.page
    page.wait_for_selector("#guide.large", timeout=SLOW)
    assert page.get_attribute("#guide [data-guide=large]", "aria-pressed") == "true"
    for number in range(6, len(LESSONS) + 1):
        answer(explorer, number)
        page.click("#guide [data-guide=next]")
    assert not explorer.errors
    explorer.close()


@pytest.mark.long
def test_lesson_five_hands_over_to_the_answers(browser, app_url):
    explorer = Explorer(browser, app_url, query="lesson=5")
    answer(explorer, 5)
    explorer.says("Set by the lesson")
    explorer.page.click("#try-button")
    table = explorer.reads("answers-table", "right answers lost")
    assert table.startswith("Addition:") and " + " in table and "Behind masks" in table and "✗" in table
    assert LESSONS[4].reveal.split("“")[1].split("”")[0] in table  # the question that the lesson quoted
    explorer.choose("answers-kind", "recall")
    explorer.reads("answers-table", "Recall: 0 of 60 right answers lost")
    assert not explorer.errors
    explorer.close()


@pytest.mark.exhaustive
def test_one_can_work_while_the_guide_is_open(explorer):
    explorer.page.click("#guide-open")
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.5))
    explorer.page.wait_for_selector("#guide", timeout=SLOW)
