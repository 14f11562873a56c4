"""Linked selection, layer close-up, what a unit reads, two texts, and whether the choice can be trusted."""

import re

import pytest


def test_a_click_in_any_view_selects_everywhere(explorer):
    explorer.click_at("heads-plot", 0.44, 0.42)  # head 3 of 8 in layer 2 of 6
    assert "head 3, group 1 of 2 heads" in explorer.reads("unit", "layer 2, head 3")
    framed = explorer.drawn("heads-plot", "plot._fullData[4].x.includes(2.5) && [...plot._fullData[4].y].join()")
    assert "1.5" in framed and "2.5" in framed
    assert explorer.page.input_value("#layer-select input") == "Layer 2"
    explorer.drawn("channels-plot", "plot._fullData[4].y.includes(1.5)")
    explorer.drawn("head-channels-plot", "plot.layout.xaxis.title.text === 'channel inside head 3'")

    explorer.click_at("channels-plot", 0.25, 0.75)
    explorer.reads("unit", "layer 4, channel")
    explorer.drawn("layer-channels-plot", "plot._fullData.some(trace => trace.name.startsWith('channel '))")

    explorer.click_at("layer-heads-plot", 0.93, 0.8)
    explorer.reads("unit", "layer 4, head 7")
    explorer.click_at("layer-channels-plot", 0.02, 0.2)
    explorer.reads("unit", "layer 4, channel")
    explorer.choose("layer-select", "Layer 5")
    explorer.reads("unit", "layer 5.")


@pytest.mark.long
def test_what_does_this_unit_read(explorer):
    explorer.open_tab("What does this unit read?", "reads")
    explorer.reads("reads", "Click a head or a channel")
    explorer.click_at("channels-plot", 0.02, 0.42)
    explorer.reads("reads", "is most active at the marked tokens of mixed")
    marked = explorer.page.locator("#reads mark")
    assert marked.count() == 8 and all(text for text in marked.all_inner_texts())
    shown = explorer.page.locator("#reads .strength").all_inner_texts()
    strengths = [float(text.replace("−", "-")) for text in shown]
    assert [abs(value) for value in strengths] == sorted(map(abs, strengths), reverse=True)
    first = explorer.text("reads")
    explorer.click_at("heads-plot", 0.06, 0.42)
    explorer.wait_until("before => document.querySelector('#reads').innerText !== before", arg=first)
    explorer.reads("reads", "head 0 is most active")


@pytest.mark.exhaustive
def test_stories_and_addition_light_up_different_units(explorer):
    page = explorer.page
    explorer.choose("calibration-source", "Children's stories")
    explorer.reads("estimate", "A run reads")
    page.click("#score-button")
    explorer.reads("estimate", "Scored on stories")
    explorer.open_tab("Two texts", "second-select")
    explorer.click("second-button")
    summary = explorer.reads("contrast-summary", "addition against stories")
    heads, channels = map(float, re.findall(r"to (-?\d\.\d\d)", summary.replace("−", "-")))
    assert heads < 0.7 and channels < 0.5
    largest = explorer.drawn("difference-channels", "Math.max(...plot._fullData[0].z.flatMap(row => [...row]))")
    assert largest > 1  # some channels weigh more by a whole mean score on one text than on the other
    layers = explorer.drawn("correlation-plot", "plot._fullData[0].y.length")
    assert layers == 6
    overlap = explorer.drawn("overlap-plot", "plot._fullData.map(trace => [...trace.y])")
    assert overlap[1][9] < 0.9  # at half the channels removed, the texts keep different ones

    explorer.click_at("difference-heads", 0.44, 0.42)
    explorer.drawn("heads-plot", "plot._fullData[4].x.includes(2.5)")
    explorer.open_tab("Layer close up", "unit")
    explorer.reads("unit", "layer 2, head 3")


@pytest.mark.exhaustive
def test_metrics_agree_or_not_and_the_choice_is_stable_or_not(explorer):
    explorer.open_tab("Can I trust it?", "agreement-plot")
    names = explorer.drawn("agreement-plot", "[...plot._fullData[0].x]")
    assert names[0] == "Activation norm" and "Random" in names
    explorer.click("stability-button")
    explorer.reads("stability-summary", "of the kept channels stay the same")
    sizes, shares = explorer.drawn("stability-plot", "[[...plot._fullData[1].x], [...plot._fullData[1].y]]")
    assert sizes[0] == 1 and sizes[-1] == 128
    assert shares[0] < shares[-1] <= 1
    explorer.choose("metric-select", "Random")
    # what was found for one metric says nothing of another
    explorer.wait_until("!document.querySelector('#stability-summary').innerText.includes('stay the same')")
