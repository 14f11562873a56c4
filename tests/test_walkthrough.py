"""The notebook in docs/ runs as it stands, and comes to what its text says."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "walkthrough.ipynb"
RESULTS = """
print(json.dumps({
    "table": table.to_dict("index"), "chance": behind_random_mask, "masked": behind_mask, "solved": solved.to_dict(),
    "report": report.to_dict(), "stock_parameters": stock.num_parameters(), "difference": largest_difference,
}))
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after it ran in a folder of its own, with one more cell that tells its values."""
    folder = tmp_path_factory.mktemp("walkthrough")
    for name in ("assets", "transact"):
        (folder / name).symlink_to(ROOT / name)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(RESULTS))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    assert {path.name for path in folder.iterdir()} == {"assets", "transact"}
    return notebook


@pytest.fixture(scope="module")
def results(executed):
    return json.loads(executed.cells[-1].outputs[0].text)


def test_it_is_kept_without_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count or cell.metadata for cell in cells)


@pytest.mark.exhaustive
def test_tables_and_figures_are_shown(executed):
    shown = [set(output.get("data", ())) for cell in executed.cells for output in cell.get("outputs", ())]
    assert sum("text/html" in kinds for kinds in shown) >= 6
    assert sum("application/vnd.plotly.v1+json" in kinds for kinds in shown) == 2


@pytest.mark.exhaustive
def test_the_pruned_model_is_smaller_and_repair_pays(results):
    table = results["table"]
    dense, cut, best = table["dense"], table["by score"], table["search and best"]
    assert best["parameters"] == cut["parameters"] == results["stock_parameters"] < 0.7 * dense["parameters"]
    assert dense["perplexity"] < best["perplexity"] < table["by score, least squares"]["perplexity"]
    assert table["by score, least squares"]["perplexity"] < cut["perplexity"] < results["chance"]


@pytest.mark.exhaustive
def test_the_mask_told_what_the_cut_gives(results):
    assert results["masked"] == pytest.approx(results["table"]["by score"]["perplexity"], rel=1e-5)


@pytest.mark.exhaustive
def test_the_report_is_of_the_same_models(results):
    report, table = results["report"], results["table"]
    assert report["perplexity"] == pytest.approx(table["search and best"]["perplexity"], rel=1e-6)
    assert report["reference_perplexity"] == pytest.approx(table["dense"]["perplexity"], rel=1e-6)
    assert set(results["solved"]["pruned"]) == {"stories", "addition", "recall", "brackets", "code"}
    assert sum(results["solved"]["pruned"].values()) < sum(results["solved"]["dense"].values())


@pytest.mark.exhaustive
def test_stock_transformers_computes_the_same(results):
    assert results["difference"] == 0
