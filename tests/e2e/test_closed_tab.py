"""A tab that is closed mid-job: the job ends, others go on at once, and the tab, reopened, has its last good work."""

import pytest

from tests.e2e.explorer import SLOW, Explorer

LONG = "\n\n".join(["A fox and a crow met by the river and told each other stories. " * 20] * 400)


def scoring(explorer: Explorer) -> None:
    explorer.paste_own_text(LONG)
    explorer.page.get_by_label("Sequences").fill("4096")
    explorer.page.get_by_label("Tokens each").fill("512")
    explorer.page.click("#score-button")
    explorer.reads("progress", "Scoring")


def pruning(explorer: Explorer) -> None:
    explorer.page.click("#prune-button")
    explorer.reads("progress", "Measuring")


@pytest.mark.exhaustive
@pytest.mark.parametrize("begin", [scoring, pruning], ids=lambda begin: begin.__name__)
def test_a_closed_tab_holds_nobody_up_and_loses_nothing(browser, app_url, begin):
    closed = Explorer(browser, app_url)
    closed.prune(1)
    savings = closed.after_change("savings", lambda: closed.type_number("mlp-sparsity", 0.7))
    tab = closed.page.evaluate("sessionStorage.getItem('transact-tab')")
    begin(closed)
    closed.page.close()

    other = Explorer(browser, app_url)
    other.page.click("#try-button")
    other.reads("tried", "Behind masks")  # within a minute, where the job alone would have taken several
    assert not other.errors
    other.close()

    again = Explorer(browser, app_url, tab=tab)
    again.bring("result-table")
    again.page.wait_for_selector("#result-table table", timeout=SLOW)
    again.reads("savings", savings.split()[-1])
    assert again.text("savings") == savings
    again.prune(2)
    assert not again.errors
    again.close()
