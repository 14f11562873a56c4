"""The tour: ten steps, each moving the page to what it speaks of, from the keyboard as well."""

import pytest

from tests.e2e.explorer import SLOW
from ui.views.guide_steps import STEPS


def test_the_tour_moves_the_page_step_by_step(explorer):
    page = explorer.page
    page.click("#guide-open")
    page.wait_for_selector("#guide", timeout=SLOW)
    for number, step in enumerate(STEPS, start=1):
        page.wait_for_selector(f"#guide article:visible :text('{step.title}')", timeout=SLOW)
        page.wait_for_selector(".guided", timeout=SLOW)
        explorer.wait_until(  # the page glides
            "id => { const box = document.getElementById(id).getBoundingClientRect();"
            " return box.bottom > 0 && box.top < innerHeight; }",
            arg=step.target,
        )
        assert page.evaluate("document.querySelectorAll('.guided').length") == 1
        if number < len(STEPS):
            page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(f"#guide article:visible :text('{STEPS[-2].title}')", timeout=SLOW)
    page.keyboard.press("Escape")
    page.wait_for_selector("#guide", state="hidden", timeout=SLOW)
    assert page.evaluate("document.activeElement.id") == "guide-open"
    assert page.evaluate("document.querySelectorAll('.guided').length") == 0


@pytest.mark.exhaustive
def test_one_can_work_while_the_tour_is_open(explorer):
    explorer.page.click("#guide-open")
    explorer.after_change("savings", lambda: explorer.type_number("attention-sparsity", 0.5))
    explorer.page.wait_for_selector("#guide", timeout=SLOW)
