"""A reloaded page is its tab's own from the first click on, and what the page before it still says stops nothing."""

import pytest

from tests.e2e.explorer import SLOW

NEVER_DRAWN = """
const find = document.querySelector.bind(document);
document.querySelector = (selector) => selector.includes("heatmaplayer") ? null : find(selector);
"""
"""For the page's own scripts the maps are never drawn, as on a machine that takes long for them."""


@pytest.mark.long
def test_what_is_pressed_at_once_after_a_reload_is_about_the_tabs_own_work(explorer):
    page = explorer.page
    explorer.prune(1)
    page.add_init_script(NEVER_DRAWN)
    page.reload()
    page.wait_for_selector("#part-take-button", timeout=SLOW)
    explorer.click("push-button")
    assert "No repository was named" in explorer.says("Not done")
    explorer.bring("result-table")
    page.wait_for_selector("#result-table table", timeout=SLOW)
