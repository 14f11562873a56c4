"""Locks by click and key, undo, limits, layer sliders, and a wrong value in each field."""

import pytest

from tests.e2e.explorer import SLOW


def removed(explorer, plot: str) -> str:
    return str(explorer.marks(plot))


def test_locks_by_click_and_by_key_and_back(explorer):
    page = explorer.page
    explorer.remove(0.25, 0.5)
    before = removed(explorer, "heads-plot")
    explorer.click_at("heads-plot", 0.55, 0.07)  # head 4 of layer 0, which the score removes
    explorer.reads("unit", "it goes, left to the score")
    explorer.click("lock-keep")
    explorer.reads("unit", "it stays, locked to stay")
    explorer.drawn("heads-plot", "plot._fullData[2].x.length === 2")
    assert removed(explorer, "heads-plot") != before

    page.locator("#heads-plot").focus()
    page.keyboard.press("x")
    explorer.reads("unit", "it goes, locked to go")
    explorer.drawn("heads-plot", "plot._fullData[3].x.length === 2 && plot._fullData[2].x.length === 0")
    page.keyboard.press("ArrowDown")
    explorer.reads("unit", "layer 1, head 4")
    page.keyboard.press("ArrowRight")
    explorer.reads("unit", "layer 1, head 5")
    page.keyboard.press("k")
    explorer.reads("unit", "2 units locked in all")
    page.keyboard.press("l")
    explorer.reads("unit", "1 unit locked in all")
    assert "locks=locks" in explorer.text("code-view")

    page.keyboard.press("Control+z")
    explorer.reads("unit", "2 units locked in all")
    page.keyboard.press("Control+Shift+z")
    explorer.reads("unit", "1 unit locked in all")
    explorer.click("unlock-all")
    explorer.reads("unit", "left to the score.")
    assert removed(explorer, "heads-plot") == before


@pytest.mark.exhaustive
def test_locks_on_a_bin_of_channels(explorer):
    explorer.remove(0.25, 0.5)
    explorer.click_at("channels-plot", 0.9, 0.42)
    explorer.reads("unit", "it goes, left to the score")
    explorer.page.locator("#channels-plot").focus()
    explorer.page.keyboard.press("k")
    explorer.reads("unit", "it stays, locked to stay")
    explorer.drawn("channels-plot", "plot._fullData[2].x.length === 1")
    explorer.page.keyboard.press("ArrowLeft")
    explorer.reads("unit", "it goes, left to the score · 1 unit")


@pytest.mark.exhaustive
def test_undo_redo_and_reset_over_everything_that_changes_the_plan(explorer):
    page = explorer.page
    start = explorer.text("savings")
    assert page.is_disabled("#undo-button") and page.is_disabled("#redo-button")
    moved = explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.8))
    explorer.choose("metric-select", "Weight × activation")
    explorer.reads("code-view", 'metric="wanda"')
    explorer.after_change("savings", lambda: explorer.type_number("layer-channels", 300))
    page.wait_for_selector("#allocation input[value=manual]:checked", timeout=SLOW)

    page.click("#undo-button")
    page.wait_for_selector("#allocation input[value=uniform]:checked", timeout=SLOW)
    assert explorer.text("savings") == moved
    page.click("#undo-button")
    explorer.reads("code-view", 'metric="transact"')
    explorer.after_change("savings", lambda: page.click("#undo-button"))
    assert explorer.text("savings") == start
    assert page.input_value("#mlp-sparsity input[type=number]") == "0.2"
    explorer.after_change("savings", lambda: page.click("#redo-button"))
    assert explorer.text("savings") == moved
    explorer.after_change("savings", lambda: page.click("#reset-button"))
    assert explorer.text("savings") == start
    explorer.after_change("savings", lambda: page.click("#undo-button"))
    assert explorer.text("savings") == moved


@pytest.mark.long
def test_one_limit_sets_both_sliders(explorer):
    page = explorer.page
    for label, most in (("KV cache", 0.5), ("Parameters", 0.5), ("Memory", 0.4)):  # each changes what is there
        page.get_by_role("radio", name=label).check()
        page.wait_for_selector("#target-share input[type=number]", timeout=SLOW)
        explorer.reads("choice-note", "the most that fits the limit")
        explorer.after_change("savings", lambda most=most: explorer.type_number("target-share", most))
        note = explorer.text("choice-note")
        share = float(note.split("(")[1].split("%")[0])
        assert share <= 100 * most, label
        attention = float(page.input_value("#attention-sparsity input[type=number]"))
        assert attention in (0.25, 0.5, 0.75), label
        explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.1))
        page.wait_for_selector("#target-kind input[value=sliders]:checked", timeout=SLOW)


@pytest.mark.long
def test_a_layer_by_slider_and_by_table(explorer):
    page = explorer.page
    explorer.remove(0.25, 0.5)
    explorer.choose("layer-select", "Layer 3")
    explorer.reads("unit", "layer 3")
    explorer.after_change("savings", lambda: explorer.type_number("layer-groups", 4))
    explorer.reads("choice-note", "3 to 4 of 4")
    page.click("text=Every layer by number")
    assert explorer.rows("layer-table", 5)[3] == ["3", "4", "4", "256", "512"]


WRONG = [
    ("attention-sparsity", "1.5", "below 1"),
    ("layer-groups", "0", "whole number from 1"),
    ("mlp-sparsity", "-0.2", "below 1"),
    ("layer-channels", "9999", "it has 512"),
    ("layer-channels", "12.5", "whole number"),
]
"""In an order in which no sentence is already there for the number before."""


def test_a_wrong_number_gets_one_sentence_and_changes_nothing(explorer):
    savings = explorer.text("savings")
    for field, value, sentence in WRONG:
        explorer.type_number(field, value)
        said = explorer.says(sentence)
        assert "\n" not in said.strip(), field
        assert explorer.text("savings") == savings, field


@pytest.mark.exhaustive
def test_a_wrong_setting_of_the_text_is_told(explorer):
    for label, value, sentence, right in (
        ("Sequences", "0", "whole number from 1", "128"),
        ("Tokens each", "1", "whole number from 2", "256"),
        ("Seed", "-1", "whole number from 0", "0"),
    ):
        box = explorer.page.get_by_label(label)
        box.fill(value)
        box.press("Tab")
        explorer.page.click("#score-button")
        explorer.says(sentence)
        box.fill(right)


@pytest.mark.exhaustive
def test_a_wrong_limit_table_prompt_and_revision_are_told(explorer):
    page = explorer.page
    page.get_by_role("radio", name="Parameters").check()
    page.wait_for_selector("#target-share input[type=number]", timeout=SLOW)
    explorer.type_number("target-share", 3)
    explorer.says("share of the dense model")
    explorer.bring("prompt")
    page.locator("#prompt textarea, #prompt input").fill("  ")
    explorer.click("generate-button")
    explorer.says("The prompt is empty")
    page.locator("#prompt textarea, #prompt input").fill("word " * 600)
    explorer.click("generate-button")
    explorer.says("tokens and the model's context is 512")
    page.click("text=Revision and precision")
    page.get_by_label("Revision").fill("no-such-revision")
    explorer.name_model("org/none")
    explorer.says("org/none")


@pytest.mark.exhaustive
def test_dimensions_of_heads_say_who_can_load_them(explorer):
    page = explorer.page
    page.click("#granularity input[value=head_dims]")
    explorer.reads("choice-note", "4 of 4 head groups, of each head")
    assert "only this project loads them" in explorer.text("choice-note")
    assert "RoPE pairs" in explorer.text("attention-sparsity")
    code = explorer.reads("code-view", "granularity")
    assert 'granularity="head_dims"' in code and "queries=True" in code
    explorer.prune(1, repair="None")
    explorer.reads("export-layers", "Compact: today only")


@pytest.mark.exhaustive
def test_heads_inside_their_groups_leave_the_kv_cache_as_it_is(explorer):
    page = explorer.page
    explorer.remove(0.25, 0.5)
    page.click("#granularity input[value=heads]")
    explorer.reads("choice-note", "4 of 4 head groups, of each 1 of 2 query heads,")
    assert "in steps of 1 of 2" in explorer.text("attention-sparsity")
    explorer.reads("savings", "±0 %")
    assert 'granularity="heads"' in explorer.reads("code-view", "granularity")
    explorer.click_at("heads-plot", 0.55, 0.07)
    explorer.reads("unit", "its group left to the score")
    explorer.prune(1, repair="None")
    page.click("#undo-button")
    explorer.reads("choice-note", "3 of 4 head groups and")
    assert page.locator("#granularity input[value=head_groups]").is_checked()


@pytest.mark.exhaustive
def test_layers_may_share_what_goes(explorer):
    explorer.remove(0.25, 0.5)
    savings = explorer.text("savings")
    explorer.page.get_by_label("More where less is lost").click()
    explorer.reads("choice-note", "2 to 4 of 4")
    assert 'allocation="global"' in explorer.reads("code-view", "allocation")
    assert explorer.text("savings").splitlines()[0] == savings.splitlines()[0]
    explorer.page.get_by_label("The same in every layer").click()
    explorer.reads("choice-note", "3 of 4")


@pytest.mark.exhaustive
def test_heads_and_channels_may_share_one_threshold(explorer):
    page = explorer.page
    explorer.remove(0.25, 0.5)
    savings = explorer.text("savings")
    explorer.choose("metric-select", "squared for heads")
    explorer.reads("code-view", 'metric="flap"')
    page.get_by_label("under one threshold").click()
    explorer.reads("choice-note", "how many of the parameters that go are heads’")
    assert 'allocation="flap"' in explorer.reads("code-view", "allocation")
    assert explorer.text("savings").splitlines()[0] == savings.splitlines()[0]
    explorer.reads("mlp-sparsity", "how many parameters go")
    # the KV cache depends on the head groups that stay, which the threshold decides: refused, and nothing moves
    page.locator("#target-kind input[value=kv]").click()
    explorer.says("Give a limit of parameters")
    page.wait_for_selector("#target-kind input[value=sliders]:checked", timeout=SLOW)
    assert 'allocation="flap"' in explorer.text("code-view")
    page.get_by_label("The same in every layer").click()
    explorer.reads("choice-note", "3 of 4")
    page.locator("#target-kind input[value=kv]").click()
    explorer.reads("choice-note", "fits the limit")
    page.get_by_label("under one threshold").click()
    explorer.says("Give a limit of parameters")
    page.wait_for_selector("#allocation input[value=uniform]:checked", timeout=SLOW)


@pytest.mark.exhaustive
def test_gradients_bring_the_taylor_metric(explorer):
    explorer.page.click("#metric-select input")
    assert not explorer.page.get_by_role("option", name="Taylor").count()
    explorer.page.keyboard.press("Escape")
    explorer.page.click("#calibration-taylor input")
    explorer.page.get_by_label("Sequences").fill("16")
    explorer.page.click("#score-button")
    explorer.says("Scored")
    explorer.remove(0.25, 0.5)
    before = removed(explorer, "heads-plot"), removed(explorer, "channels-plot")
    explorer.choose("metric-select", "Taylor")
    assert "taylor=True" in explorer.reads("code-view", 'metric="taylor"')
    assert (removed(explorer, "heads-plot"), removed(explorer, "channels-plot")) != before
