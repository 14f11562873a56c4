"""Live text follows every click and slider, and the verdict says what is known of the cost."""

import shutil

import pytest

from transact.models.sources import BUNDLED_DIRECTORY

TEXT = "document.querySelector('#live-masked p')?.innerText"


def test_text_follows_the_sliders_the_clicks_and_the_prompt(explorer):
    page = explorer.page
    explorer.wait_until(f"{TEXT}?.length > 60")
    dense = explorer.text("live-dense")
    explorer.reads("verdict", "not known yet")
    explorer.remove(0.5, 0.9)
    explorer.wait_until("document.querySelectorAll('#live-masked mark').length > 0")
    assert explorer.text("live-dense") == dense
    assert "%" in explorer.text("live-next")

    page.get_by_label("The selected unit alone").check()
    explorer.reads("live-masked", "Click a head or a channel")
    explorer.click_at("heads-plot", 0.06, 0.07)  # the head that layer 0 needs most
    explorer.reads("live-masked", "selected unit off")

    page.locator("#live-prompt textarea").fill("One day, a dog")
    page.locator("#live-prompt textarea").press("Tab")
    explorer.reads("live-dense", "One day, a dog")
    explorer.reads("live-masked", "One day, a dog")
    page.locator("#live-prompt textarea").fill("")
    page.locator("#live-prompt textarea").press("Tab")
    explorer.reads("live-masked", "The prompt is empty")


@pytest.mark.long
def test_the_verdict_goes_from_masks_to_measured_and_a_stop_keeps_the_cut(explorer):
    page = explorer.page
    explorer.remove(0.25, 0.5)
    page.click("#try-button")
    explorer.reads("verdict", "Behind masks: perplexity ×")
    assert explorer.page.is_visible("#part-results")  # opened by itself
    explorer.choose("repair-select", "None, plain cut")
    page.click("#prune-button")
    explorer.reads("progress", "Measuring on")
    page.click("#stop-button")
    explorer.says("Result 1 is ready: stopped")
    explorer.reads("verdict", "has not been measured")
    explorer.choose("measure-on", "children's stories")
    page.click("#measure-button")
    explorer.says("Result 1 is ready: measured on stories")
    explorer.reads("verdict", "Measured: perplexity ×")
    (row,) = explorer.results()
    assert row["#"] == "1"
    explorer.after_change("verdict", lambda: explorer.type_number("mlp-sparsity", 0.4))
    explorer.reads("verdict", "not known yet: try it behind masks, or cut and measure. The last result: perplexity ×")


@pytest.mark.long
def test_a_model_without_scores_writes_and_what_was_masked_before_goes(explorer, tmp_path):
    explorer.wait_until(f"{TEXT}?.length > 60")
    explorer.name_model(str(shutil.copytree(BUNDLED_DIRECTORY, tmp_path / "model")))
    explorer.reads("live-masked", "has not been scored yet")
    assert len(explorer.text("live-dense")) > 60


@pytest.mark.long
@pytest.mark.parametrize("width", [1280])
def test_everything_that_belongs_together_is_in_view_at_once(explorer, width):
    explorer.page.set_viewport_size({"width": width, "height": 800})
    explorer.wait_until(f"{TEXT}?.length > 60")
    for elem_id in ("stop-button", "heads-plot", "channels-plot", "attention-sparsity", "mlp-sparsity", "verdict",
                    "prune-button", "live-dense", "live-masked"):  # fmt: skip
        box = explorer.page.locator(f"#{elem_id}").bounding_box()
        assert box["y"] >= 0 and box["y"] + min(box["height"], 90) <= 800, elem_id
