"""Results as a table that is sorted and hidden, two of them with their texts, and what a head attends to."""

from tests.e2e.explorer import SLOW


def test_results_are_sorted_hidden_chosen_and_let_write(explorer):
    page = explorer.page
    explorer.choose("measure-on", "Held-out: addition of two numbers")
    for number, share in ((1, 0.6), (2, 0.2), (3, 0.4)):
        explorer.after_change("savings", lambda share=share: explorer.type_number("mlp-sparsity", share))
        explorer.prune(number, "None")
    assert [row["#"] for row in explorer.results()] == ["3", "2", "1"]
    sizes = [row["Parameters"] for row in explorer.results()]
    page.click("#history-table th[data-column=parameters] button")
    assert [row["#"] for row in explorer.results()] == ["1", "3", "2"]
    assert sorted(sizes) == [row["Parameters"] for row in explorer.results()]  # in the same unit
    page.click("#history-table th[data-column=parameters] button")
    assert [row["#"] for row in explorer.results()] == ["2", "3", "1"]

    assert "Random" in explorer.results()[0] and "Model" not in explorer.results()[0]
    page.click("#history-table .columns summary")
    page.uncheck("#history-table .columns input[value=random_perplexity]")
    page.check("#history-table .columns input[value=model]")
    assert "Random" not in explorer.results()[0] and explorer.results()[0]["Model"] == "bundled"

    page.check("#history-table input[name=first][value='1']")
    explorer.reads("side-by-side", "Result 1")
    page.check("#history-table input[name=second][value='2']")
    explorer.reads("side-by-side", "Result 2")
    assert page.input_value("#compare-first input").startswith("#1:")
    # the table comes anew: what was sorted and hidden stays
    explorer.choose("compare-second", "#3:")
    explorer.wait_until("document.querySelector('#history-table input[name=second][value=\"3\"]').checked")
    assert [row["#"] for row in explorer.results()] == ["2", "3", "1"]
    assert "Random" not in explorer.results()[0] and explorer.results()[0]["Model"] == "bundled"

    explorer.click("pair-button")
    written = explorer.reads("pair-texts", "Result 3")
    assert written.count("Once upon a time") == 2 and page.locator("#pair-texts mark").count() > 0
    symbols = explorer.drawn("pareto-plot", "plot._fullData.filter(t => t.marker?.symbol).map(t => t.marker.symbol)")
    assert len(set(symbols)) == len(symbols) >= 3


def test_a_head_on_a_sentence_and_a_unit_on_two_texts(explorer):
    page = explorer.page
    explorer.open_tab("Attention", "attention-text")
    explorer.click_at("heads-plot", 0.44, 0.42)
    explorer.reads("attention-summary", "Layer 2, head 3")
    first = explorer.drawn("attention-plot", "plot._fullData[0].z.map(row => [...row].map(x => x || 0))")
    assert len(first) > 10 and all(abs(sum(row) - 1) < 1e-3 for row in first)
    page.locator("#attention-text textarea").fill("The cat saw the dog.")
    page.keyboard.press("Enter")
    explorer.drawn("attention-plot", f"plot._fullData[0].z.length < {len(first)}")
    explorer.click_at("heads-plot", 0.06, 0.42)
    explorer.reads("attention-summary", "head 0")

    explorer.open_tab("Two texts", "second-select")
    explorer.click("second-button")
    explorer.says("Scored addition as well")
    shown = explorer.reads("contrast-unit", "Size of its activation")
    assert "addition" in shown and "of 8" in shown and "Layer 2, head 0" in shown
    page.wait_for_selector("#difference-heads .js-plotly-plot", timeout=SLOW)
