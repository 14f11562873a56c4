"""Training back what a cut lost: live curves, a row of the history, a stop that keeps the best, wrong numbers."""

import pytest

from tests.e2e.explorer import SLOW


@pytest.mark.exhaustive
def test_training_is_drawn_as_it_goes_and_becomes_a_result(explorer):
    page = explorer.page
    explorer.reads("recover-estimate", "60,000 tokens, about")
    explorer.choose("repair-select", "None")
    explorer.bring("recover-text")
    page.get_by_label("The calibration text").check()
    explorer.fill("recover", tokens=30_000)
    assert "of memory" in explorer.reads("recover-estimate", "30,000 tokens")
    explorer.click("recover-button")
    explorer.drawn("recover-plot", "plot._fullData[1].x.length >= 2")  # while it still runs
    assert page.locator("#stop-button").is_enabled()
    explorer.says("Result 1 is ready: cut, trained and measured")
    perplexities = explorer.drawn("recover-plot", "[...plot._fullData[1].y]")
    assert min(perplexities) < 0.7 * perplexities[0]
    levels = explorer.drawn("recover-plot", "plot._fullData.slice(2).map(trace => trace.name)")
    assert levels[0].startswith("dense") and levels[1].startswith("one shot, not trained")
    assert explorer.drawn("recover-plot", "plot.layout.shapes.length") == 1  # where the shot was
    assert "tokens per second" in explorer.text("recover-note")
    (row,) = explorer.results()
    assert row["Repair"] == "training"
    assert "ta.recover(loaded, calibration, target, settings" in explorer.text("code-view")
    assert "python -m transact recover" in page.locator("body").inner_text()


@pytest.mark.exhaustive
def test_a_stop_keeps_what_was_best_until_then(explorer):
    page = explorer.page
    explorer.choose("repair-select", "None")
    explorer.bring("recover-text")
    page.get_by_label("The calibration text").check()
    explorer.fill("recover", tokens=5_000_000)
    explorer.click("recover-button")
    explorer.drawn("recover-plot", "plot._fullData[1].x.length >= 2")
    page.click("#stop-button")
    explorer.says("Result 1 is ready: stopped, with the best so far")
    assert "Stopped: what was best until then was kept" in explorer.text("recover-note")
    assert len(explorer.results()) == 1
    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-button")
    assert download.value.path().stat().st_size > 1_000_000


@pytest.mark.exhaustive
def test_wrong_numbers_are_said_beside_the_form_and_when_pressed(explorer):
    for values, said in (
        ({"tokens": -5}, "give a whole number from 0"),
        ({"tokens": 30_000, "rate": 0}, "give a number above 0"),
        ({"rate": 0.001, "tokens": 90_000_000}, "5,000,000 at most"),
    ):
        explorer.fill("recover", **values)
        explorer.reads("recover-estimate", said)
        explorer.click("recover-button")
        assert said in explorer.says(said)
    explorer.fill("recover", tokens=1000)
    explorer.choose("repair-select", "Add what is missing")
    explorer.reads("recover-estimate", "Bias repair cannot be trained on")
    explorer.click("recover-button")
    explorer.says("Choose another repair")


@pytest.mark.exhaustive
def test_a_reload_keeps_the_curves(explorer):
    page = explorer.page
    explorer.choose("repair-select", "None")
    explorer.bring("recover-text")
    page.get_by_label("The calibration text").check()
    explorer.fill("recover", tokens=4_000)
    explorer.click("recover-button")
    explorer.says("Result 1 is ready")
    page.reload()
    explorer.drawn("recover-plot", "plot._fullData[1].x.length >= 2")
    explorer.errors.clear()  # the browser names every answer that the reload broke off
