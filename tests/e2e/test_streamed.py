"""A model larger than the app's memory, from its name to the files, without being asked to stream."""

import json
import zipfile

import pytest

from tests.conftest import ROOT
from tests.e2e.explorer import SLOW, Explorer

MODEL = str(ROOT / "assets" / "model")  # by its folder, as the bundled model stays in memory whatever the budget


@pytest.fixture(scope="module")
def small_app_url(tmp_path_factory):
    from tests.e2e.server import running_app

    with running_app(tmp_path_factory.mktemp("app") / "app.log", {"TRANSACT_MEMORY_BUDGET": "12MB"}) as url:
        yield url


@pytest.fixture
def explorer(browser, small_app_url):
    opened = Explorer(browser, small_app_url)
    yield opened
    assert not opened.errors and not opened.foreign_requests
    opened.close()


@pytest.mark.exhaustive
def test_the_whole_way(explorer, tmp_path):
    page = explorer.page
    box = page.locator("#model-select input")
    box.click()
    box.fill(MODEL)
    box.press("Enter")
    explorer.wait_until("document.querySelector('#model-card').innerText.includes('passes layer by layer')")
    page.click("#load-button")
    explorer.says("passes layer by layer from its files. Now choose a calibration text")
    assert "one at a time" in explorer.text("model-card")
    page.click("#score-button")
    explorer.says("Scored")
    assert page.locator("#repair-select input").input_value().startswith("Refit")
    explorer.type_number("mlp-sparsity", 0.8)
    page.click("#try-button")
    page.wait_for_selector("#tried .headline", timeout=SLOW)
    page.click("#prune-button")
    explorer.says("Result 1 is ready")
    shown = explorer.text("result-table")
    assert "Speed was not measured" in shown and "perplexity" in shown
    assert "ta.stream_prune" in explorer.text("code-view") and "--stream" in explorer.text("command-view")

    explorer.click("generate-button")
    explorer.says("Let the pruned model write elsewhere")
    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-button")
    download.value.save_as(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as zipped:
        (config,) = [name for name in zipped.namelist() if name.endswith("/config.json")]
        assert json.loads(zipped.read(config))["intermediate_size"] == 102
    assert "not proved" in explorer.text("message")
