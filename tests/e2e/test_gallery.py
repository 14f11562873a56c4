"""A model of the gallery in a browser: open within seconds, planned without weights, and never cut."""

import time

MOST_SECONDS = 10.0
"""For a page that is promised within two, on a machine that does other things meanwhile."""


def test_a_model_opens_without_its_weights(explorer):
    explorer.choose("model-select", "SmolLM2-135M-Instruct (gallery)")
    explorer.reads("model-card", "Opens at once, without its weights; press Load")
    began = time.monotonic()
    explorer.click("load-button")
    assert explorer.drawn("heads-plot", "plot._fullData[0].z.length === 30")
    assert time.monotonic() - began < MOST_SECONDS
    explorer.says("SmolLM2-135M-Instruct is open without its weights")
    assert "135 M" in explorer.text("savings")
    assert "Scored on C4" in explorer.reads("estimate", "before, for the gallery")
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.5))
    assert "perplexity × 2.95" in explorer.reads("verdict", "to be expected: perplexity × 2.95 on WikiText-2 test")
    assert None in explorer.marks("channels-plot")
    shown = explorer.drawn("pareto-plot", "plot._fullData.map(trace => trace.x?.length)")
    assert shown[1:] == [4, 4, 1]
    explorer.click("prune-button")
    explorer.says("This needs the weights of SmolLM2-135M-Instruct")
    explorer.reads("live-masked", "This needs the weights of SmolLM2-135M-Instruct")
    explorer.click("weights-button")  # no hub can be reached here
    explorer.says("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert "without its weights" in explorer.text("title")
