"""Try, prune, compare, map, and take the settings along."""

import csv
import json
import re

import pytest

from tests.e2e.explorer import SLOW, Explorer


@pytest.mark.exhaustive
def test_try_shows_perplexity_text_and_tasks_behind_masks(explorer):
    page = explorer.page
    page.click("#try-button")
    tried = explorer.reads("tried", "Behind masks the perplexity on mixed is")
    assert "As it is, it writes" in tried and "Behind masks, it writes" in tried
    kinds = explorer.drawn("probes-plot", "[...plot._fullData[0].y]")
    assert {"stories", "addition", "recall", "brackets", "code"} == set(kinds)
    dense, masked = explorer.drawn("probes-plot", "plot._fullData.map(trace => [...trace.x])")
    assert dense[kinds.index("stories")] == 1
    assert max(before - after for before, after in zip(dense, masked, strict=True)) > 0.3
    assert "Nothing has been cut" in explorer.text("result-table")


@pytest.mark.exhaustive
def test_history_front_floor_side_by_side_and_back(explorer):
    page = explorer.page
    explorer.remove(0.25, 0.5)
    explorer.prune(1)
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.3))
    explorer.prune(2, repair="Refit the weights")
    explorer.choose("metric-select", "Random")
    explorer.reads("code-view", 'metric="random"')
    explorer.prune(3)

    assert [row["#"] for row in explorer.results()] == ["3", "2", "1"]
    names = explorer.drawn("pareto-plot", "plot._fullData.map(trace => trace.name)")
    assert names == ["Pareto front", "random (the floor)", "measured", "dense"]
    floor, pruned = explorer.drawn("pareto-plot", "[[...plot._fullData[1].y], [...plot._fullData[2].y]]")
    assert len(floor) == 3 and len(pruned) == 2
    assert pruned[0] < floor[0] and pruned[1] < floor[1]  # both scored cuts beat chance

    side = explorer.reads("side-by-side", "Result 3")
    assert "Result 2" in side and "in common" in side and "least squares" in side
    explorer.choose("compare-first", "#1:")
    explorer.reads("side-by-side", "Result 1")
    explorer.click("restore-button")
    explorer.says("The controls stand as for result 1")
    assert page.input_value("#mlp-sparsity input[type=number]") == "0.5"
    assert 'metric="transact"' in explorer.text("code-view")

    with page.expect_download(timeout=SLOW) as download:
        explorer.click("history-csv")
    lines = list(csv.DictReader(download.value.path().read_text(encoding="utf-8").splitlines()))
    assert [line["number"] for line in lines] == ["1", "2", "3"]
    random, pruned, dense = (
        float(lines[0][name]) for name in ("random_perplexity", "perplexity", "reference_perplexity")
    )
    assert random > pruned > dense


@pytest.mark.long
def test_the_redundancy_map_fills_stops_and_sets_the_sliders(explorer):
    page = explorer.page
    explorer.click("map-button")
    first = explorer.drawn(
        "redundancy-plot", "plot._fullData[0].z.flatMap(row => [...row]).filter(Number.isFinite).length"
    )
    explorer.wait_until(
        "first => parseInt(document.querySelector('#redundancy-note').innerText) > first + 2", arg=first
    )
    page.click("#stop-button")
    explorer.says("stay in the map")
    kept = int(re.match(r"\d+", explorer.text("redundancy-note")).group())
    assert 3 <= kept < 40
    # the corners come first: full size, and the most that may go
    explorer.click_at("redundancy-plot", 0.96, 0.9)
    explorer.reads("choice-note", "1 of 4")
    assert page.input_value("#mlp-sparsity input[type=number]") == "0.9"


def test_a_link_restores_model_text_ratios_and_locks(browser, app_url, explorer):
    page = explorer.page
    explorer.choose("calibration-source", "Addition of two numbers")
    explorer.reads("estimate", "A run reads")
    page.get_by_label("Sequences").fill("48")
    page.click("#score-button")
    explorer.reads("estimate", "Scored on addition: 48")
    explorer.remove(0.25, 0.5)
    explorer.click_at("heads-plot", 0.06, 0.42)
    explorer.reads("unit", "layer 2, head 0")
    explorer.click("lock-remove")
    explorer.reads("unit", "locked to go")
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.33))
    explorer.reads("code-view", "mlp=0.33")
    address = explorer.value("settings-address", "")
    assert address.startswith(app_url)

    other = Explorer(browser, address.split("?")[0], query=address.split("?")[1])
    other.says("The settings are those of the link")
    assert other.text("code-view") == explorer.text("code-view")
    assert other.text("savings") == explorer.text("savings")
    assert other.marks("heads-plot") == explorer.marks("heads-plot")
    assert other.page.get_by_label("Sequences").input_value() == "48"
    assert not other.errors
    other.close()


@pytest.mark.long
def test_a_damaged_link_is_told(browser, app_url):
    opened = Explorer(browser, app_url, query="model=bundled&metric=luck")
    assert "metric" in opened.says("copy the link again")
    opened.close()


@pytest.mark.exhaustive
def test_the_plan_of_the_page_is_the_plan_in_the_file(explorer):
    explorer.after_change("savings", lambda: explorer.type_number("attention-sparsity", 0.5))
    with explorer.page.expect_download(timeout=SLOW) as download:
        explorer.click("export-plan")
    plan = json.loads(download.value.path().read_text(encoding="utf-8"))
    assert {len(layer["kept_head_groups"]) for layer in plan["layers"]} == {2}
