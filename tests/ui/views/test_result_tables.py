"""The result table by hand: what it says of loss, of speed, and of a model that is no faster."""

import csv
import html
import io
import re
from dataclasses import replace

import pytest
from transformers import LlamaConfig

import transact as ta
from ui.state.session import BUNDLED, Choice, Result, Sampling, Scored
from ui.text_sources.text_source import TextSource
from ui.views import result_table, results_history, side_by_side
from ui.views.savings import savings

REPORT = ta.EvalReport(
    perplexity=6.5,
    perplexity_standard_error=0.25,
    num_predictions=1000,
    parameters=1_700_000,
    flops_per_token=4_000_000,
    kv_bytes_per_token=1024,
    checkpoint_bytes=3_400_000,
    protocol={"perplexity": "over <held-out> text"},
    prefill_tokens_per_second=2000.0,
    decode_tokens_per_second=300.0,
    reference_perplexity=6.0,
    reference_perplexity_standard_error=0.2,
    perplexity_difference=0.5,
    perplexity_difference_standard_error=0.05,
    top1_agreement=0.875,
    kl_divergence=0.125,
    reference_parameters=2_720_000,
    reference_flops_per_token=8_000_000,
    reference_kv_bytes_per_token=2048,
    reference_checkpoint_bytes=5_440_000,
    reference_prefill_tokens_per_second=1000.0,
    reference_decode_tokens_per_second=200.0,
    prefill_spread=(1900.0, 2100.0),
    decode_spread=(290.0, 310.0),
    prefill_flops_per_token=2_000_000.0,
    decode_flops_per_token=3_000_000.0,
    reference_prefill_spread=(950.0, 1050.0),
    reference_decode_spread=(190.0, 210.0),
    reference_prefill_flops_per_token=5_000_000.0,
    reference_decode_flops_per_token=6_000_000.0,
    prefill_differs=True,
    decode_differs=True,
)


def _cells(result: Result) -> dict[str, str]:
    """What the table shows of a result, by the titles of its columns."""
    return {column.title: column.cell(result) for column in results_history.columns((result,))}


@pytest.fixture
def result() -> Result:
    spec = ta.ModelSpec.from_config(
        LlamaConfig(
            hidden_size=16, num_attention_heads=4, head_dim=4, num_hidden_layers=2, intermediate_size=8, vocab_size=32
        )
    )
    plan = ta.make_plan(
        ta.ImportanceScores.random(spec), spec, ta.PruningTarget(keep_head_groups=3, keep_channels=(4, 6))
    )
    text = TextSource("stories", ("x",), "sample")
    scored = Scored(BUNDLED, spec, text, Sampling(), None, None, 0.1, None, {}, {})
    text = TextSource("<mixed>", ("y",), "evaluation")
    return Result(3, scored, Choice(metric="wanda"), plan, "none", REPORT, text, (("recall", 0.95, 0.5),), 9.5)


def test_every_number_stands_beside_its_difference(result):
    table = result_table.result_table(result)
    for shown in (
        "6.50 <small>± 0.250", "× 1.08 <small>(+0.500 <small>± 0.0500", "87.5 %", "0.125", "+50.0 %",
    ):  # fmt: skip
        assert shown in table, shown
    assert "95 %</td><td>50 %</td><td>−45 points" in table


def test_overlap_with_the_calibration_text_is_said(result):
    assert "also stand in the calibration text" not in result_table.result_table(result)
    assert "25 % of the measured sequences also stand" in result_table.result_table(replace(result, overlap=0.25))


def test_no_name_of_the_library_alone_is_shown(result):
    """What chose and what repaired are called as in the menus, the search too."""
    searched = replace(result, plan=replace(result.plan, metric="search"), repair="least_squares")
    assert "chosen by Search" in result_table.result_table(searched)
    assert "chosen by Fluctuation (FLAP)" in result_table.result_table(
        replace(result, plan=replace(result.plan, metric="fluctuation"))
    )
    for shown in (_cells(searched)["Repair"], side_by_side.side_by_side(searched, searched)):
        assert "least squares" in shown and "least_squares" not in shown


def test_names_from_outside_are_escaped(result):
    assert "&lt;mixed&gt;" in result_table.result_table(result)
    assert "&lt;held-out&gt;" in result_table.result_table(result)
    assert "<mixed>" not in result_table.result_table(result)


def test_a_faster_model_is_said_to_be():
    assert result_table.speed_sentence(REPORT) == (
        "On this machine it reads 2.00 × as fast and writes 1.50 × as fast; the saved operations alone would allow "
        "2.50 × and 2.00 ×."
    )


@pytest.mark.parametrize(
    ("prefill", "decode", "named"),
    [
        (1010.0, 300.0, "reads as fast as before within the noise and writes 1.50 × as fast; the saved"),
        (2000.0, 150.0, "reads 2.00 × as fast and writes 0.750 × as fast; the saved"),
        (900.0, 150.0, "reads 0.900 × as fast and writes 0.750 × as fast; the saved"),
    ],
)
def test_what_is_no_faster_is_told_with_the_reason(prefill, decode, named):
    measured = {"prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode}
    sentence = result_table.speed_sentence(replace(REPORT, **measured, prefill_differs=prefill != 1010))
    assert named in sentence and "2.50 × and 2.00 ×" in sentence and "fixed costs" in sentence


def test_speeds_stand_with_their_spread_and_a_difference_within_it_is_none(result):
    table = result_table.result_table(result)
    assert "1.00 k <small>950 – 1.05 k</small></td><td>2.00 k <small>1.90 k – 2.10 k</small></td><td>+100.0 %" in table
    noise = replace(REPORT, decode_tokens_per_second=205.0, decode_spread=(195.0, 215.0), decode_differs=False)
    table = result_table.result_table(replace(result, report=noise))
    assert "205 <small>195 – 215</small></td><td>no different within the noise</td>" in table


def test_equal_work_is_not_called_faster():
    same = {f"{kind}_flops_per_token": getattr(REPORT, f"reference_{kind}_flops_per_token")
            for kind in ("prefill", "decode")}  # fmt: skip
    sentence = result_table.speed_sentence(replace(REPORT, **same, prefill_differs=False, decode_differs=False))
    assert "as fast as before within the noise: nothing" in sentence and "fixed costs" not in sentence


def test_two_results_differ_in_speed_only_beyond_their_spreads(result):
    slower = replace(REPORT, prefill_tokens_per_second=1500.0, prefill_spread=(1400.0, 1600.0))
    plan = ta.make_plan(
        ta.ImportanceScores.random(result.plan.dense_spec), result.plan.dense_spec, ta.PruningTarget(2, 4)
    )
    other = replace(result, plan=plan, report=slower)
    compared = side_by_side.side_by_side(result, other)
    assert "<td>−25.0 %</td>" in compared
    assert "no different within the noise" in compared  # writing
    again = side_by_side.side_by_side(result, replace(result, report=slower))  # the same shapes
    assert "<td>−25.0 %</td>" not in again


def test_without_timing_nothing_is_claimed():
    assert result_table.speed_sentence(replace(REPORT, decode_tokens_per_second=None)) == "Speed was not measured."


def test_history_newest_first_and_csv_oldest_first(result):
    unmeasured = replace(result, number=4, report=None)
    later = replace(result, number=5)
    table = results_history.history_table((result, unmeasured, later), 3, 5)
    assert re.findall(r'data-key="(\d+)">\1<', table) == ["5", "4", "3"]
    assert '<td data-key="">not measured</td>' in table
    assert re.findall(r'name="(\w+)" value="(\d)" checked', table) == [("second", "5"), ("first", "3")]
    cells = _cells(result)
    assert cells["Random"] == "9.50" and cells["Measured by"] == "Random (the floor)"
    assert cells["Times the dense"] == "× 1.08" and cells["Task: recall"] == "50 %"
    assert _cells(unmeasured)["Times the dense"] == ""

    lines = list(csv.DictReader(io.StringIO(results_history.history_csv((result, unmeasured, later)))))
    assert [line["number"] for line in lines] == ["3", "4", "5"]
    shown = {column.name for column in results_history.columns((result,))}
    assert shown <= lines[0].keys() and len(lines[0]) > len(shown)
    assert (lines[0]["perplexity"], lines[0]["probe_recall"], lines[1]["perplexity"]) == ("6.5", "0.5", "")
    assert float(lines[0]["perplexity_times_dense"]) == 6.5 / 6


def test_what_a_column_sorts_by_is_what_the_file_holds(result):
    """A table of names beside numbers: the hidden key of a cell is its value with full precision."""
    table = results_history.history_table((result,))
    for column in results_history.columns((result,)):
        value = column.value(result)
        assert f'data-key="{"" if value is None else html.escape(str(value))}"' in table, column.title
    assert table.count('<th scope="col" data-column=') == len(results_history.columns((result,)))


def test_two_results_side_by_side(result):
    kept = result.plan.layers[0].kept_channels
    other = next(channel for channel in range(8) if channel not in kept)
    swapped = replace(result.plan.layers[0], kept_channels=tuple(sorted((*kept[1:], other))))
    later = replace(
        result, number=5, repair="least_squares", report=replace(REPORT, perplexity=3.25),
        plan=replace(result.plan, layers=(swapped, result.plan.layers[1])),
    )  # fmt: skip
    table = side_by_side.side_by_side(result, later)
    assert "Result 3" in table and "Result 5" in table
    assert "<td>6.50</td><td>3.25</td><td>× 0.500</td>" in table
    assert "<td>87.5 %</td><td>87.5 %</td><td>±0 points</td>" in table
    assert "<td>none</td><td>least squares</td>" in table
    assert "<td>10</td><td>10</td><td>90 % in common</td>" in table
    assert "Two results are needed" in side_by_side.side_by_side(result, None)


def test_layer_rows_show_counts_before_and_after(result):
    assert result_table.layer_rows(result.plan) == [[0, 3, 4, 4, 8], [1, 3, 4, 6, 8]]


def test_what_is_saved_is_counted_once(result):
    """The table after the cut says what the strip said before it, by the same protocol."""
    table = result_table.result_table(result)
    for saving in savings(result.plan):
        shown = f"{saving.protocol}</small></th><td>{saving.before}</td><td>{saving.after}</td>"
        assert shown in table, saving.label


def test_two_texts_mark_what_differs():
    shown = side_by_side.two_texts("Once", (1, " a fox ran"), (2, " a crow ran"))
    assert "<mark>crow</mark>" in shown and "Result 1" in shown and "Result 2" in shown
    assert "<mark>" not in side_by_side.two_texts("Once", (1, " a fox"), (2, " a fox"))
