"""What is measured on, by default and by choice, and that a link brings every setting back."""

import json
from urllib.parse import urlsplit

import pytest

from tests.e2e.explorer import Explorer
from tests.e2e.server import ROOT

LINES = (ROOT / "assets" / "samples" / "stories.jsonl").read_text(encoding="utf-8").splitlines()
TEXT = "\n\n".join(json.loads(line)["text"] for line in LINES[:40])


@pytest.mark.long
def test_the_held_out_part_measures_and_a_link_brings_the_settings_back(browser, app_url, explorer, tmp_path):
    page = explorer.page
    explorer.paste_own_text(TEXT)
    page.click("#score-button")
    assert "held out for measuring" in explorer.says("Scored")
    explorer.wait_until("document.querySelector('#measure-on input').value.startsWith('Held out of')")
    assert "ta.hold_out(calibration_texts, 0.1)" in explorer.text("code-view")
    explorer.prune(1)
    assert "pasted text, held out: " in explorer.text("verdict")
    assert "--held-out 0.1" in explorer.text("command-view")

    own = tmp_path / "own.txt"
    own.write_text(TEXT[:2000], encoding="utf-8")
    explorer.choose("measure-on", "Upload a file")
    page.wait_for_selector("#evaluation-file input[type=file]", state="attached")
    page.set_input_files("#evaluation-file input[type=file]", own)
    explorer.wait_until("document.querySelector('#evaluation-file').innerText.includes('own')")
    page.click("#measure-button")
    explorer.says("measured on own.txt")
    assert "own.txt: " in explorer.text("verdict")

    explorer.choose("measure-on", "Held-out: children's stories")
    explorer.choose("measure-size", "the whole text")
    explorer.fill("goal", size=35, minutes=2)
    explorer.wait_until("document.querySelector('#settings-address')?.value.includes('minutes=2')")
    address = page.input_value("#settings-address")
    assert "measure=stories" in address and "amount=full" in address and "repair=none" in address
    again = Explorer(browser, app_url, query=urlsplit(address).query)
    try:
        again.says("The settings are those of the link")
        assert again.page.input_value("#measure-size input") == "the whole text"
        assert again.page.input_value("#measure-on input") == page.input_value("#measure-on input")
        assert again.page.input_value("#goal-size input[type=number]") == "35"
        again.bring("settings-address")
        query = urlsplit(again.page.input_value("#settings-address")).query
        wanted = {part for part in urlsplit(address).query.split("&") if not part.startswith(("text", "heldout"))}
        assert wanted <= set(query.split("&"))
    finally:
        again.close()


@pytest.mark.long
def test_the_goal_is_foretold_and_a_locked_head_raises_the_slider(explorer):
    page = explorer.page
    page.click("#goal-probe")
    assert "leave attention whole" in explorer.reads("goal-advice", "Recommended")
    explorer.reads("goal-expected", "Predicted: perplexity")
    explorer.drawn("goal-frontier", "plot._fullData.some(trace => trace.name === 'predicted')")
    explorer.click_at("heads-plot", 0.1, 0.1)
    explorer.reads("unit", "head")
    explorer.click("lock-remove")
    explorer.says("the slider moved: heads from 0 % to 25 %")
    assert "locked to go" in explorer.text("unit")
    explorer.click("unlock-all")
    page.click("#finer-button")
    explorer.reads("choice-note", "inside a group")
    assert page.input_value("#attention-sparsity input[type=number]") == "0"
