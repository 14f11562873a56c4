"""A size and a time instead of knobs: what is told before, the result, a stop that keeps the best, wrong numbers."""

import pytest

from tests.e2e.explorer import SLOW


def test_a_size_and_a_time_become_a_result(explorer):
    page = explorer.page
    explorer.reads("goal-expected", "head groups and")
    explorer.fill("goal", size=99, minutes=0.1)
    explorer.reads("goal-expected", "cannot be reached")
    page.click("#goal-go")
    explorer.says("cannot be reached")
    explorer.fill("goal", size=30, minutes=0)
    page.click("#goal-go")
    explorer.says("give minutes above 0")
    explorer.fill("goal", size=30, minutes=0.1)
    assert "tokens, " in explorer.reads("goal-expected", "Then reading")
    page.click("#goal-go")
    explorer.says("Result 1 is ready: made and measured")
    (row,) = explorer.results()
    assert row["Repair"] == "least squares, for 0.1 min"
    assert "size=0.7, minutes=0.1, widths=" in explorer.text("code-view")
    assert "python -m transact compress" in page.locator("body").inner_text()


@pytest.mark.long
def test_a_stop_keeps_the_best_so_far(explorer):
    page = explorer.page
    page.get_by_label("Layers may differ").check()
    explorer.fill("goal", size=40, minutes=30)
    explorer.reads("goal-expected", "distilling")
    page.click("#goal-go")
    explorer.reads("progress", "Distilling")
    page.click("#stop-button")
    explorer.says("Result 1 is ready: stopped, with the best so far")
    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-button")
    assert download.value.path().stat().st_size > 1_000_000
