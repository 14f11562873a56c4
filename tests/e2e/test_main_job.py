"""A visitor's whole way on the bundled model, and the ways a visitor goes wrong."""

import subprocess
import sys
import time
import zipfile

import pytest

from tests.e2e.explorer import SLOW, Explorer
from tests.tiers import cases

# a process without this project: what stock transformers makes of the downloaded folder, computing as the app does
STOCK = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="float32")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer("Once upon a time", return_tensors="pt").input_ids
assert "transact" not in sys.modules
print(sum(p.numel() for p in model.parameters()))
print(tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1]:]))
"""


def cells(explorer: Explorer, row: str) -> list[str]:
    """Dense, pruned and difference of a row of the result table."""
    explorer.bring("result-table")
    found = explorer.page.locator("#result-table tr", has_text=row).first
    return [cell.strip() for cell in found.locator("td").all_inner_texts()]


def test_the_main_job(browser, app_url, tmp_path, capsys):
    began = time.monotonic()
    explorer = Explorer(browser, app_url)
    painted = time.monotonic() - began
    page = explorer.page

    assert "In memory" in explorer.text("model-card")
    first_marks = explorer.marks("heads-plot"), explorer.marks("channels-plot")
    explorer.after_change("savings", lambda: explorer.type_number("attention-sparsity", 0.5))
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.25))
    explorer.wait_until("document.querySelector('#channels-plot .js-plotly-plot')._fullData[1].x.includes(75)")
    assert (explorer.marks("heads-plot"), explorer.marks("channels-plot")) != first_marks
    assert "2 of 4 head groups" in explorer.text("choice-note")

    page.click("#prune-button")
    page.wait_for_selector("#result-table table", timeout=SLOW)
    pruned = time.monotonic() - began
    with capsys.disabled():
        sys.stdout.write(f"\n  first paint after {painted:.1f} s, pruned and measured after {pruned:.1f} s\n")

    dense, kept, difference = cells(explorer, "perplexity")
    assert float(kept.split()[0]) > float(dense.split()[0])
    assert "±" in kept and difference.startswith("× ") and "(+" in difference
    for row in (
        "top-1",
        "KL divergence",
        "probe",
        "prefill",
        "decode",
        "parameters",
        "FLOPs",
        "KV cache",
        "checkpoint",
    ):
        assert cells(explorer, row), row
    assert "On this machine" in explorer.text("result-table")
    assert explorer.value("generation-dense") != explorer.value("generation-pruned")
    assert "report = ta.evaluate" in explorer.text("code-view")
    # the standard repair searched for what to remove, and what is marked now is what went
    assert "ta.search_plan" in explorer.text("code-view") and 'compensation="best"' in explorer.text("code-view")
    assert "what the search chose" in explorer.text("choice-note")
    assert explorer.drawn("pareto-plot", "plot._fullData.map(trace => trace.name).join()") == (
        "Pareto front,random (the floor),measured,dense"
    )

    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-button")
    download.value.save_as(tmp_path / "pruned.zip")
    assert "alone computed the same logits" in explorer.says("Stock transformers loads it")
    with zipfile.ZipFile(tmp_path / "pruned.zip") as zipped:
        zipped.extractall(tmp_path)
        folder = tmp_path / zipped.namelist()[0].split("/")[0]
        assert {"model.safetensors", "config.json", "plan.json", "README.md"} <= {p.name for p in folder.iterdir()}
    answer = subprocess.run(
        [sys.executable, "-c", STOCK, str(folder)], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.splitlines()
    assert f"{int(answer[0]) / 1e6:.2f} M" == cells(explorer, "Weights")[1]
    assert explorer.value("generation-pruned").startswith("\n".join(answer[1:]))

    with page.expect_download(timeout=SLOW) as download:
        explorer.click("export-plan")
    assert download.value.suggested_filename == "bundled-plan.json"

    assert not explorer.errors
    assert not explorer.foreign_requests
    explorer.close()


@pytest.mark.exhaustive
def test_score_other_text_switch_metric_and_look_closer(explorer):
    page = explorer.page
    explorer.choose("calibration-source", "Children's stories")
    explorer.wait_until("document.querySelector('#estimate').innerText.includes('A run reads')")
    page.click("#score-button")
    explorer.says("Scored")
    assert "stories" in explorer.text("estimate")

    z = "document.querySelector('#heads-plot .js-plotly-plot')._fullData[0].z"
    before = page.evaluate(f"JSON.stringify({z}.map(row => [...row]))")
    explorer.choose("metric-select", "Fluctuation")
    explorer.wait_until(f"before => JSON.stringify({z}.map(row => [...row])) !== before", arg=before)
    assert 'metric="fluctuation"' in explorer.text("code-view")

    explorer.click_row("channels-plot", 0.7)
    explorer.bring("layer-select")
    explorer.wait_until("!document.querySelector('#layer-select input').value.startsWith('Layer 0')")

    page.click("#try-button")
    page.wait_for_selector("#tried .headline", timeout=SLOW)
    assert "Behind masks" in explorer.text("tried")
    assert "Nothing has been cut" in explorer.text("result-table")
    assert not explorer.errors


@pytest.mark.exhaustive
def test_stop_leaves_the_last_good_state(explorer):
    page = explorer.page
    code = explorer.text("code-view")
    page.get_by_label("Tokens each").fill("512")
    long_text = "\n\n".join(["A fox and a crow met by the river and told each other stories. " * 20] * 400)
    explorer.paste_own_text(long_text)
    page.get_by_label("Sequences").fill("4096")
    for button, running in (("score-button", "Scoring"), ("prune-button", "Searching")):
        page.click(f"#{button}")
        explorer.wait_until("words => document.querySelector('#progress').innerText.includes(words)", arg=running)
        page.click("#stop-button")
        assert "as it was" in explorer.says("Stopped")
        assert "Nothing has been cut" in explorer.text("result-table")
        assert explorer.text("code-view") == code
        assert page.is_disabled("#stop-button")


@pytest.mark.exhaustive
def test_slider_from_the_keyboard_and_snapping(explorer):
    page = explorer.page
    page.locator("#mlp-sparsity input[type=range]").focus()
    explorer.after_change("savings", lambda: page.keyboard.press("ArrowRight"))
    explorer.type_number("attention-sparsity", 0.3)
    assert "nearest is 0.25" in explorer.says("no whole number")
    explorer.type_number("attention-sparsity", 7)
    assert "below 1" in explorer.says("Not done")
    assert "2 of 4" not in explorer.text("choice-note")


def test_wrong_input_gets_one_sentence_and_loses_nothing(explorer, tmp_path):
    page = explorer.page
    savings = explorer.text("savings")

    explorer.name_model("nobody/does-not-exist")
    assert "local folder" in explorer.says("nobody/does-not-exist")
    explorer.paste_own_text("")
    page.click("#score-button")
    explorer.says("The text is empty")

    explorer.choose("calibration-source", "Upload a file")
    page.wait_for_selector("#calibration-file input[type=file]", state="attached", timeout=SLOW)
    wrong = tmp_path / "latin.txt"
    wrong.write_bytes("café au lait".encode("latin-1"))
    page.set_input_files("#calibration-file input[type=file]", wrong)
    explorer.wait_until("document.querySelector('#calibration-file').innerText.includes('latin')")
    assert "UTF-8" in explorer.says("not UTF-8")

    explorer.click("export-button")
    assert "Prune first" in explorer.says("Nothing has been cut")

    assert "\n" not in explorer.text("message").strip()
    assert explorer.text("savings") == savings
    explorer.prune(1)
    page.wait_for_selector("#result-table table", timeout=SLOW)


@pytest.mark.parametrize(
    ("width", "theme"), cases([(390, "light"), (390, "dark"), (1280, "dark")], test=[(390, "dark")])
)
def test_usable_when_narrow_and_dark(browser, app_url, width, theme):
    explorer = Explorer(browser, app_url, width=width, theme=theme)
    page = explorer.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") <= 4_000
    explorer.wait_until("document.querySelector('#live-masked p')?.innerText.length > 60")
    page.evaluate("document.getElementById('live-next').scrollIntoView({block: 'end', behavior: 'instant'})")
    for always_in_view in ("#savings", "#prune-button", "#stop-button"):
        box = page.locator(always_in_view).bounding_box()
        assert 0 <= box["y"] < 300, always_in_view
    for check_box in ("#search-choice", "#goal-differ"):
        assert page.locator(check_box).bounding_box()["width"] >= 140, check_box
    assert not explorer.errors
    explorer.close()
