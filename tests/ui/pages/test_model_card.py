"""The card of a model that was only named: whether it fits, and what to do where it does not."""

import html
import json
import re
import shlex
from dataclasses import replace

import pytest

import transact as ta
from tests.conftest import ROOT, read_texts
from transact.cli import main
from ui.pages.model import preflight_card

CARD = ta.preflight("bundled")


def test_a_model_that_fits():
    assert "press Load" in preflight_card(CARD)
    assert "stream" not in preflight_card(CARD)


def test_one_that_does_not_fit_even_layer_by_layer():
    shown = preflight_card(replace(CARD, available_bytes=CARD.streamed_bytes - 1))
    assert "choose a smaller one" in shown and "stream" not in shown


@pytest.mark.slow
def test_the_streamed_way_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    shown = preflight_card(replace(CARD, available_bytes=CARD.required_bytes - 1))
    assert "it can be cut layer by layer from its files" in shown
    shell, python = (html.unescape(block) for block in re.findall("<pre>(.*?)</pre>", shown, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    texts = read_texts(ROOT / "assets" / "samples" / "stories.jsonl")[:4]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    program, arguments = shlex.split(shell.replace("\\\n", " "))[:3], shlex.split(shell.replace("\\\n", " "))[3:]
    assert program == ["python", "-m", "transact"]
    assert main(arguments) == 0, capsys.readouterr().err
    (tmp_path / "pruned-model").rename(tmp_path / "by the shell")
    exec(python, {"ta": ta, "texts": texts})
    plans = [ta.PruningPlan.from_json((tmp_path / name / "plan.json").read_text()) for name in
             ("pruned-model", "by the shell")]  # fmt: skip
    assert plans[0].layers == plans[1].layers


def test_names_are_quoted_where_they_are_shown():
    shown = preflight_card(replace(CARD, source="a'b <i>", available_bytes=CARD.required_bytes - 1))
    assert "<i>" not in shown and "&lt;i&gt;" in shown
