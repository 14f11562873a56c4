"""The parts of `benchmarks.real_model` that a wrong table would not give away."""

import math
from dataclasses import replace

import pytest
import torch

import transact as ta
from benchmarks import peers
from benchmarks.cells import DENSE, Cell, Protocol, Record, above_chance, missing, overview, rows_of
from benchmarks.peers import Method, Request
from benchmarks.real_model import Bench, Runner, report
from transact.repair import ridge
from transact.repair.ridge import NormalEquations

PROTOCOL = Protocol("model", 8, 64, 4, 64)


def _cell(method: str, perplexity: float, size: float = 25.0) -> Cell:
    return Cell(method, "1", size, PROTOCOL, perplexity, 100, 0.25)


def test_the_logarithmic_schedule_by_hand():
    assert peers.log_schedule(0.1, 0.5, 4) == pytest.approx([0.1, 0.3, 0.1 + 0.4 * math.log(3) / math.log(4), 0.5])
    assert peers.log_schedule(0.1, 0.5, 1) == [0.5]


@pytest.mark.parametrize("groups", [4, 3, 2])
@pytest.mark.parametrize("removed", [0.3, 0.5])
def test_the_schedule_fills_the_budget(stories, groups, removed):
    spec = stories.spec
    budget = round(spec.num_parameters - removed * (spec.num_parameters - spec.fixed_parameters))
    channels = peers.slim_channels(spec, (groups,) * spec.num_hidden_layers, budget)
    parameters = ta.PruningTarget(groups, channels).spec(spec).num_parameters
    assert budget - spec.parameters_per_channel < parameters <= budget
    assert list(channels) == sorted(channels, reverse=True)


def test_a_block_is_removed_that_costs_least_after_refitting():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=draws, dtype=torch.float64)
    x[:, 2] += x[:, 5] + x[:, 0]  # blocks share something
    weight = torch.randn(5, 6, generator=draws, dtype=torch.float64)
    normal = NormalEquations(x.T @ x, weight @ x.T @ x)

    def error(kept: list[int]) -> float:
        part, y = x[:, kept], x @ weight.T
        return float((y - part @ torch.linalg.lstsq(part, y).solution).square().sum())

    without = {block: error([at for at in range(6) if at // 2 != block]) for block in range(3)}
    cheapest = min(without, key=without.__getitem__)
    assert peers.obs_groups(normal, 2, 2) == tuple(block for block in range(3) if block != cheapest)
    assert peers.obs_groups(normal, 3, 2) == (0, 1, 2)


def test_constants_come_back_after_an_error():
    before = ridge.RIDGE
    with pytest.raises(RuntimeError), peers.constants(ridge, RIDGE=0.5):
        assert ridge.RIDGE == 0.5
        raise RuntimeError
    assert before == ridge.RIDGE


def test_gaps_and_ratios_by_hand():
    made = [
        replace(_cell(DENSE, 10.0), size=0.0),
        _cell("flap", 10 * math.e**0.8),
        _cell("grail-0.001", 10 * math.e**0.5),
        _cell("grail-0.1", 10 * math.e**0.4),
        _cell("obs", 10 * math.e**0.6),
        _cell("search-best", 10 * math.e**0.2),
    ]
    cells = {cell.key: cell for cell in made}
    rows = {row.family: row for row in rows_of(cells, PROTOCOL, 25.0, peers.METHODS)}
    assert len(rows) == 4  # the better ridge alone
    grail = rows["FLAP metric + ridge refit (GRAIL)"]
    assert (grail.variant, grail.gap, grail.of_refits) == ("ridge 0.1", pytest.approx(0.4), pytest.approx(1.0))
    ours = rows["ours: search + best"]
    assert (ours.of_refits, ours.of_flap) == (pytest.approx(0.5), pytest.approx(0.25))
    assert "| ours: search + best | 12.21 | 0.50 | 0.50 | 0.25 |" in overview({25.0: list(rows.values())})
    absent = missing(cells, PROTOCOL, [25.0])
    assert "transact at 25 %" in absent and "obs at 25 %" not in absent
    assert above_chance({"one": (0.6, 0.2), "two": (0.0, 0.0)}) == pytest.approx(0.25)


def test_a_run_takes_up_what_an_earlier_one_measured(stories, calibration_texts, evaluation_texts, tmp_path):
    calibration = ta.CalibrationSet.from_texts(calibration_texts[:8], stories.tokenizer, seq_len=64)
    evaluation = ta.EvaluationSet.from_texts(evaluation_texts[:4], stories.tokenizer, seq_len=64)
    made: list[Request] = []

    def make(request: Request) -> ta.LoadedModel:
        made.append(request)
        return peers.by_metric("transact")(request)

    fake = Method("fake", "Fake", make, "ours")
    record = Record(tmp_path / "cells.json")

    def run(method: Method = fake, **options) -> Cell:
        runner = Runner(Bench(stories, calibration, evaluation), record, **options)
        runner.dense()
        return runner.cell(method, 25.0)

    first = run()
    assert first.removed == pytest.approx(0.25, abs=0.01) and first.split in (2, 3, 4)
    assert run() == first and len(made) == 1
    run(again=True)
    run(replace(fake, version="2"))
    assert len(made) == 3
    cells = record.cells()
    assert {key[0] for key in cells} >= {DENSE, "fake", "split 4"}
    assert (
        first.split
        == min(
            (cell for cell in cells.values() if cell.method.startswith("split")), key=lambda cell: cell.perplexity
        ).split
    )
    assert "| Fake |" in report(Bench(stories, calibration, evaluation), cells, [25.0], [fake])
    calibration = calibration.first(4)
    run()
    assert len(made) == 4  # another protocol
