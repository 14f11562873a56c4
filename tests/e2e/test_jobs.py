"""Jobs on the page: maps that come while text passes, a Stop that keeps them, and several settings worked off."""

TEXT = "\n\n".join(["A fox and a crow met by the river and told each other stories about the moon. " * 24] * 400)
DRAWN = "JSON.stringify([...document.querySelector('#heads-plot .js-plotly-plot')._fullData[0].z].map(row => [...row]))"


def test_scores_come_while_text_passes_and_settings_are_worked_off(explorer):
    page = explorer.page
    explorer.paste_own_text(TEXT)
    page.get_by_label("Tokens each").fill("512")
    page.get_by_label("Sequences").fill("400")
    before = page.evaluate(DRAWN)
    page.click("#score-button")
    explorer.wait_until(f"before => {DRAWN} !== before", arg=before)
    assert "Scoring on pasted text" in explorer.text("progress") and "left" in explorer.text("progress")
    page.click("#try-button")
    explorer.says("is still running; wait for it or press Stop")
    page.click("#stop-button")
    said = explorer.says("Stopped after")
    assert "tokens: the scores are of these." in said
    assert "the longest" in explorer.text("estimate")
    assert "calibration.longest(" in explorer.text("code-view")

    explorer.choose("repair-select", "None")
    explorer.click("queue-add")
    explorer.reads("queue-list", "% of channels; none")
    explorer.after_change("savings", lambda: explorer.type_number("mlp-sparsity", 0.5))
    explorer.click("queue-add")
    explorer.reads("queue-list", "50 % of channels; none")
    explorer.reads("queue-start", "Cut these 2")
    explorer.click("queue-start")
    explorer.reads("progress", "Setting 2")
    explorer.says("Results 1 to 2 are ready")
    assert len(explorer.results()) == 2
    assert "add each as it stands" in explorer.text("queue-list")
