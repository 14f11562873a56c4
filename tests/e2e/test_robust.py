"""What visitors do to a page: reload it mid-run, open it twice, stop every long job."""

import time

import pytest

from tests.e2e.explorer import SLOW, Explorer
from tests.tiers import cases

LONG = "\n\n".join(["A fox and a crow met by the river and told each other stories. " * 20] * 400)


@pytest.mark.long
def test_a_reload_mid_run_keeps_what_was_good(explorer, app_url):
    page = explorer.page
    explorer.prune(1)
    savings = explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.7))
    explorer.click("map-button")
    explorer.reads("progress", "Mapping")
    page.reload()
    page.wait_for_selector("#channels-plot .heatmaplayer image", timeout=SLOW)
    explorer.errors.clear()  # the browser names every answer that the reload broke off
    explorer.bring("result-table")
    page.wait_for_selector("#result-table table", timeout=SLOW)
    explorer.reads("savings", savings.split()[-1])
    assert explorer.text("savings") == savings
    assert page.input_value("#mlp-sparsity input[type=number]") == "0.7"
    until = time.monotonic() + SLOW / 1000  # once the run that the reload broke off is over, another may begin
    while page.request.get(f"{app_url}healthz").json()["jobs_running"]:
        assert time.monotonic() < until
        page.wait_for_timeout(100)
    explorer.prune(2)


@pytest.mark.exhaustive
def test_two_tabs_do_not_see_each_other(browser, app_url, explorer):
    other = Explorer(browser, app_url)
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.9))
    explorer.choose("repair-select", "None")
    explorer.page.click("#prune-button")
    other.page.click("#try-button")  # waits for the first tab's run, then goes on by itself
    explorer.says("Result 1 is ready")
    other.reads("tried", "Behind masks")
    assert "Nothing has been cut" in other.text("result-table")
    assert other.page.input_value("#mlp-sparsity input[type=number]") == "0.2"
    assert not other.errors
    other.close()


def prepared_text(explorer) -> None:
    explorer.paste_own_text(LONG)
    explorer.page.get_by_label("Sequences").fill("4096")
    explorer.page.get_by_label("Tokens each").fill("512")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("prepare", "button", "running"),
    cases(
        [
            (prepared_text, "score-button", "Scoring"),
            (None, "try-button", "Perplexity"),
            (None, "prune-button", "Searching"),
            (None, "map-button", "Mapping"),
        ],
        test=[(None, "prune-button", "Searching")],
    ),
)
def test_every_long_job_can_be_stopped(explorer, prepare, button, running):
    page = explorer.page
    code = explorer.text("code-view")
    if prepare:
        prepare(explorer)
    explorer.click(button)
    explorer.reads("progress", running)
    page.click("#stop-button")
    explorer.says("Stopped.")
    assert page.is_disabled("#stop-button")
    assert explorer.text("code-view") == code
    assert "Nothing has been cut" in explorer.text("result-table")
    page.click("#try-button")
    explorer.reads("tried", "Behind masks")
