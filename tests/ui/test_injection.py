"""Names that others chose (files, folders, datasets, models) and what they must not become where they are shown."""

import ast
import csv
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import transact as ta
from tests.ui.views.test_result_tables import result  # noqa: F401 (a fixture)
from transact.export import model_card
from transact.observing.statistics import CalibrationRecord
from ui import figures
from ui.pages import calibration, model, reading, redundancy
from ui.server.folders import folder_name
from ui.state.session import ModelKey, Redundancy, Session
from ui.text_sources.text_source import DatasetChoice, TextSource
from ui.views import progress_line, python_code, result_table, results_history, side_by_side
from ui.views.downloads import Exports, model_stem
from ui.views.python_code import Recipe, code
from ui.views.shell_commands import commands
from ui.work.registry import Registry

SCRIPT = '<img src=x onerror="alert(1)">'
FORMULAS = ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "＝1")


def named(result, name: str):  # noqa: F811
    """The result with a calibration text, an evaluation text and a model of that name."""
    text = TextSource(name, ("x",), "file")
    scored = replace(result.scored, text=text, key=ModelKey(name))
    return replace(result, scored=scored, text=text)


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_of_the_csv_is_a_formula(result, name):  # noqa: F811
    rows = list(csv.DictReader(io.StringIO(results_history.history_csv((named(result, name),)), newline="")))
    assert [rows[0][column] for column in ("model", "calibration", "evaluation")] == [f"'{name}"] * 3
    assert rows[0]["perplexity"] == "6.5"


def test_names_are_text_wherever_html_is_written(result):  # noqa: F811
    one = named(result, SCRIPT)
    session = Session("a", one.scored.key, one.scored.spec, None, results=(one,))
    found = Redundancy(one.scored, "wanda", one.text, 1, 40, (None,))
    read = replace(ta.CalibrationSet.from_token_ids([[1]], name=SCRIPT), protocol=SCRIPT)
    record = SimpleNamespace(calibration=CalibrationRecord.of(read))
    shown = [
        progress_line.message(SCRIPT, "wrong"),
        result_table.result_table(one),
        side_by_side.side_by_side(one, one),
        side_by_side.two_texts(SCRIPT, (1, SCRIPT), (2, SCRIPT)),
        results_history.history_table((one,), 3),
        model.refused_card(SCRIPT),
        redundancy.note_line(replace(session, redundancy=found)),
        reading._row(ta.Reading(SCRIPT, SCRIPT, SCRIPT, 1.0, 0, 0), 1.0),
        calibration.scored_line(replace(session, scored=replace(one.scored, calibration=read, statistics=record))),
    ]
    for html in shown:
        assert "<img" not in html and "&lt;img" in html


def test_titles_of_figures_hold_no_tags():
    compared = SimpleNamespace(head_differences=[np.zeros(2)])
    figure = figures.head_differences_figure(compared, (f"<a href='https://x.y'>{SCRIPT}</a>", "b" * 500))
    title = figure.data[0].colorbar.title.text
    assert "<" not in title and "&lt;a href" in title
    assert len(title) < 250


@pytest.mark.parametrize(
    "name",
    ['x"); import os; os.system("true")  #', 'it\'s "both"', "a\\", "line\nbreak", "\u202ereversed", "'", "a/b"],
)
def test_the_shown_lines_say_names_and_do_nothing_else(result, name):  # noqa: F811
    text = TextSource(name, ("x",), "dataset", dataset=DatasetChoice(name, name, name, name, "c0ffee"))
    scored = replace(result.scored, key=ModelKey(name, name), text=text)
    lines = code(Recipe.of_plan(scored, result.choice, result.plan))
    tree = ast.parse(lines)
    (load,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "ta.load"]
    assert load.args[0].value == name
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {call for call in called if call.startswith("os.")}
    assert [node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)] == ["datasets", "transact"]
    assert "revision='c0ffee'" in lines
    assert "\u202e" not in lines


def test_the_shell_takes_a_name_as_one_word(result):  # noqa: F811
    import shlex

    name = "x; touch /tmp/y $(id) `id` 'q'"
    scored = replace(result.scored, key=ModelKey(name, name))
    words = shlex.split(commands(Recipe.of_plan(scored, result.choice, result.plan)))
    assert words[words.index("--model") + 1] == words[words.index("--revision") + 1] == name


def test_a_model_card_holds_no_markup_of_others(tmp_path):
    loaded = ta.load("bundled")
    evil = f"notes [x](javascript:1) {SCRIPT} `a`\n\n# Title\nhf_{'a1B' * 10}"
    plan = ta.make_plan(
        replace(ta.ImportanceScores.random(loaded.spec), calibration=evil),
        loaded.spec, ta.PruningTarget.from_sparsity(loaded.spec, attention=0.5, mlp=0.5),
    )  # fmt: skip
    ta.save(ta.prune(loaded, plan), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "<img" not in card and "[x]" not in card and "\n# Title" not in card and "a1Ba1B" not in card
    assert model_card._plain("team/wiki (train)") == "team/wiki (train)"


@pytest.mark.parametrize("owner", ["", "-", "---", "../..", "a/b", "\0", "x" * 5000, "\ud800"])
def test_whatever_a_visitor_is_called_the_folder_is_of_one(owner, tmp_path):
    exports, registry = Exports(), Registry()
    own = exports.history("another", "a,b\n")
    trained = registry.training_folder("another")
    exports.history(owner, "c,d\n")
    registry.training_folder(owner)
    exports.forget(owner)
    registry.forget(owner)
    assert own.read_text() == "a,b\n" and trained.is_dir()
    assert folder_name("a-b") != folder_name("ab")


@pytest.mark.parametrize(
    ("source", "stem"),
    [("..", "model"), ("/tmp/.hidden", "hidden"), ("a/b c<d>", "b-c-d-"), ("x" * 300, "x" * 60), ("ж" * 300, "ж" * 60)],
)
def test_names_of_downloads_are_file_names(source, stem):
    assert model_stem(ModelKey(source)) == stem


def test_texts_that_are_shown_as_a_literal_come_back_whole():
    text = TextSource("it's", ('"""', "'''", "\\", "\u202e\0", json.dumps({"a": 1})), "pasted")
    lines = python_code._tokens(text, "calibration", "CalibrationSet", "f", "seq_len=1")
    values = {}
    exec(compile(lines[0], "shown", "exec"), values)
    assert tuple(values["calibration_texts"]) == text.texts
