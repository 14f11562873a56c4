"""The emitted Python and shell lines are run, and must come to the plan and the numbers that the page has."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import transact as ta
from tests import shell
from tests.tiers import cases
from ui.state import plan_of_choice
from ui.state.choice import Budget
from ui.state.measuring_size import Size
from ui.state.options import HELD_OUT
from ui.state.session import BUNDLED, Choice, ModelKey, Sampling, Session
from ui.text_sources import text_source
from ui.views import python_code
from ui.views.python_code import Recipe, code
from ui.views.shell_commands import commands
from ui.work import compression, measuring, pruning, scoring
from ui.work.jobs import Watch
from ui.work.registry import Registry

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SAMPLING = Sampling(num_samples=8, seq_len=48, seed=3)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


def planned(
    registry: Registry, key: ModelKey, text: text_source.TextSource, choice: Choice, sampling: Sampling = SAMPLING
) -> Session:
    watch = Watch("test")
    loaded = registry.dense(key, watch)
    scored = scoring.score(registry, key, text, sampling, watch)
    return plan_of_choice.planned(Session("visitor", key, loaded.spec, scored, choice))


def run(lines: str, folder: Path, monkeypatch) -> dict:
    """Run the lines in a folder that has the project's assets, as the project's own folder does."""
    (folder / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(compile(lines, "as-code", "exec"), names)
    return names


def test_a_measured_result_is_reproduced(registry, tmp_path, monkeypatch):
    session = planned(registry, BUNDLED, text_source.sample("stories"), Choice(attention=0.25, mlp=0.5, metric="wanda"))
    watch = Watch("test")
    result = pruning.cut(registry, session, "none", watch)
    measured_on = text_source.TextSource("pasted text", text_source.evaluation_sample("stories").texts[:3], "pasted")
    result = measuring.measure(registry, "visitor", result, measured_on, watch)
    names = run(code(Recipe.of_result(result)), tmp_path, monkeypatch)
    assert names["plan"] == result.plan
    assert names["report"].perplexity == pytest.approx(result.report.perplexity, rel=1e-6)
    assert names["report"].top1_agreement == result.report.top1_agreement
    assert (tmp_path / python_code.OUTPUT_FOLDER / "config.json").exists()


def test_a_repaired_result_is_reproduced(registry, tmp_path, monkeypatch):
    session = planned(registry, BUNDLED, text_source.sample("stories"), Choice(attention=0.25, mlp=0.5))
    watch = Watch("test")
    result = pruning.cut(registry, replace(session, id="repairer"), "least_squares", watch)
    names = run(code(Recipe.of_result(result)), tmp_path, monkeypatch)
    here = registry.pruned("repairer", result.identity).model.state_dict()
    there = names["pruned"].model.state_dict()
    assert all((here[name] - there[name]).abs().max() < 1e-4 for name in here)
    plain = pruning.cut(registry, replace(session, id="plain"), "none", watch)
    unrepaired = registry.pruned("plain", plain.identity).model.state_dict()
    assert any((here[name] - unrepaired[name]).abs().max() > 1e-2 for name in here)


def test_what_was_done_for_a_size_and_a_time_is_repeated(registry, tmp_path, monkeypatch):
    session = planned(registry, BUNDLED, text_source.sample("stories"), Choice())
    goal = compression.goal(session, 25, 0.02, True)
    result = compression.compress(registry, replace(session, id="hurried"), goal, Watch("test"))
    names = run(code(Recipe.of_result(result)), tmp_path, monkeypatch)
    here = registry.pruned("hurried", result.identity)
    assert here.spec == result.plan.spec and here.spec.num_parameters <= 0.75 * names["loaded"].spec.num_parameters
    assert all(
        torch.equal(names["pruned"].model.state_dict()[name], value) for name, value in here.model.state_dict().items()
    )
    assert "transact compress \\\n" in commands(Recipe.of_result(result))
    assert f"--repeat '{here.cuts[-1].repeat}'" in commands(Recipe.of_result(result))
    assert "size=0.75, minutes=0.02, widths='free'" in code(Recipe.of_result(result))


def test_a_repair_layer_by_layer_is_reproduced(registry, tmp_path, monkeypatch):
    """What a model with larger Gram matrices gets."""
    monkeypatch.setattr(importlib.import_module("transact.observing.observe"), "_MAX_GRAM_BYTES", 0)
    session = planned(registry, BUNDLED, text_source.sample("stories"), Choice(attention=0.25, mlp=0.5))
    session = replace(session, id="layer by layer")
    result = pruning.cut(registry, session, "least_squares", Watch("test"))
    lines = code(Recipe.of_result(result))
    assert 'gram="by_layer"' in lines
    names = run(lines, tmp_path, monkeypatch)
    here = registry.pruned(session.id, result.identity).model.state_dict()
    assert all(torch.equal(names["pruned"].model.state_dict()[name], value) for name, value in here.items())


def test_counts_by_hand_and_a_local_folder_are_reproduced(registry, data, tmp_path, monkeypatch):
    key = ModelKey(str((data / "stories260K").resolve()), dtype="float32")
    choice = Choice(keep_head_groups=(4, 3, 2, 1, 4), keep_channels=(172, 100, 64, 1, 90))
    session = planned(registry, key, text_source.pasted('Lily\'s cat "Tom" \\ sat.\n\nThe end.', 48), choice)
    names = run(code(Recipe.of_plan(session.scored, choice, session.plan)), tmp_path, monkeypatch)
    assert names["plan"] == session.plan
    assert [len(layer.kept_channels) for layer in names["plan"].layers] == [172, 100, 64, 1, 90]


def test_a_long_paste_is_read_from_the_file_that_is_offered(registry, tmp_path, monkeypatch):
    text = text_source.pasted("\n\n".join(text_source.sample("stories").texts[:40]), 4096)
    assert python_code.is_own(text)
    (tmp_path / python_code.CALIBRATION_FILE).write_text(text_source.as_jsonl(text), encoding="utf-8")
    session = planned(registry, BUNDLED, text, Choice())
    names = run(code(Recipe.of_plan(session.scored, session.choice, session.plan)), tmp_path, monkeypatch)
    assert names["plan"] == session.plan


def test_a_document_is_cut_the_same_way(registry, tmp_path, monkeypatch):
    text = text_source.pasted("Once upon a time there was a fox. " * 50, 48)
    assert text.is_document
    session = planned(registry, BUNDLED, text, Choice(metric="fluctuation"))
    names = run(code(Recipe.of_plan(session.scored, session.choice, session.plan)), tmp_path, monkeypatch)
    assert names["plan"] == session.plan


def test_every_metric_is_named_as_the_library_names_it(registry):
    session = planned(registry, BUNDLED, text_source.sample("mixed"), Choice())
    for metric in session.scored.scores:
        choice = replace(session.choice, metric=metric)
        assert f'metric="{metric}"' in code(Recipe.of_plan(session.scored, choice, session.plan))


CHOICES = {
    "search": (Choice(), "best"),
    "search with a lock": (Choice(locks=ta.Locks(keep_channels=frozenset({(1, 2)}))), "best"),
    "global": (Choice(metric="wanda", allocation="global"), "least_squares"),
    "flap": (Choice(metric="flap", allocation="flap"), "bias"),
    "global and search": (Choice(allocation="global"), "best"),
    "flap and search": (Choice(allocation="flap"), "best"),
    "gradients": (Choice(metric="taylor"), "bias"),
    "heads": (Choice(attention=0.5, granularity="heads"), "best"),
    "dimensions": (Choice(attention=0.5, granularity="head_dims"), "best"),
}


@pytest.mark.parametrize(
    "name", cases(CHOICES, test=["search with a lock", "global and search", "flap", "gradients", "dimensions"])
)
def test_every_choice_and_repair_is_reproduced(registry, tmp_path, monkeypatch, name):
    choice, repair = CHOICES[name]
    taken = replace(SAMPLING, taylor=choice.metric == "taylor")
    session = planned(registry, BUNDLED, text_source.sample("stories"), choice, taken)
    watch = Watch("test")
    result = pruning.cut(registry, replace(session, id=name), repair, watch, search=True)
    assert (result.metric == "search") == (repair == "best")
    lines = code(Recipe.of_result(result))
    names = run(lines, tmp_path, monkeypatch)
    assert names["plan"].layers == result.plan.layers
    pruned = pruning.pruned_model(registry, name, result, watch)
    mine, theirs = pruned.model.state_dict(), names["pruned"].model.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in mine.items())
    if choice.allocation != "uniform":
        assert len({len(layer.kept_channels) for layer in result.plan.layers}) > 1


@pytest.mark.parametrize("kind", ["parameters", "memory", "kv"])
def test_a_limit_and_locks_are_reproduced(registry, tmp_path, monkeypatch, kind):
    locks = ta.Locks(keep_channels=frozenset({(0, 5), (3, 7)}), remove_head_groups=frozenset({(2, 1)}))
    choice = Choice(budget=Budget(kind, 0.6), locks=locks)
    session = planned(registry, BUNDLED, text_source.sample("recall"), choice)
    names = run(code(Recipe.of_plan(session.scored, choice, session.plan)), tmp_path, monkeypatch)
    assert names["plan"] == session.plan
    assert 5 in names["plan"].layers[0].kept_channels and 1 not in names["plan"].layers[2].kept_head_groups


SHELL_CHOICES = {
    "sliders and a lock": Choice(
        metric="wanda", attention=0.25, mlp=0.5, locks=ta.Locks(keep_channels=frozenset({(1, 2)}))
    ),
    "memory": Choice(budget=Budget("memory", 0.7)),
    "global": Choice(metric="fluctuation", allocation="global"),
    "flap": Choice(metric="flap", allocation="flap"),
    "flap within a limit": Choice(budget=Budget("parameters", 0.7), allocation="flap"),
    "by hand": Choice(keep_head_groups=(4, 3, 2, 1, 4, 4), keep_channels=(512, 100, 64, 1, 90, 300)),
    "heads": Choice(attention=0.5, granularity="heads"),
    "heads and by hand": Choice(
        attention=0.5, granularity="heads", keep_head_groups=(4, 3, 2, 1, 4, 4), keep_channels=(90,) * 6
    ),
    "dimensions": Choice(attention=0.5, granularity="head_dims"),
    "dimensions and by hand": Choice(
        attention=0.5, granularity="head_dims", keep_head_groups=(4, 3, 2, 1, 4, 4), keep_channels=(90,) * 6
    ),
}
AS_A_PROGRAM = "sliders and a lock"
"""The choice whose lines start Python, and prove what they write, as a user's do."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name == AS_A_PROGRAM else ()) for name in SHELL_CHOICES]
)
def test_the_shell_lines_come_to_the_same_numbers(registry, untimed, tmp_path, monkeypatch, capsys, name):
    session = planned(registry, BUNDLED, text_source.sample("stories"), SHELL_CHOICES[name])
    watch = Watch("test")
    result = pruning.cut(registry, replace(session, id=name), "none", watch)
    measured_on = text_source.TextSource("pasted text", text_source.evaluation_sample("stories").texts[:3], "pasted")
    result = measuring.measure(registry, name, result, measured_on, watch)
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    (tmp_path / python_code.EVALUATION_FILE).write_text(text_source.as_jsonl(measured_on), encoding="utf-8")
    lines = commands(Recipe.of_result(result)).rstrip() + " --json"
    if name == AS_A_PROGRAM:
        printed = json.loads(as_a_program(lines, tmp_path))
    else:
        printed = json.loads(shell.run(f"{lines} --no-proof --no-speed", tmp_path, monkeypatch, capsys))
    assert printed["report"]["perplexity"] == result.report.perplexity
    assert printed["report"]["kl_divergence"] == result.report.kl_divergence
    written = ta.PruningPlan.from_json((tmp_path / python_code.OUTPUT_FOLDER / "plan.json").read_text())
    assert written.layers == result.plan.layers


def as_a_program(lines: str, folder: Path) -> str:
    """What the lines print in a shell that knows this project."""
    return subprocess.run(
        ["bash", "-c", lines.replace("python -m", f"{sys.executable} -m")],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.fixture(scope="module")
def chatty(tmp_path_factory) -> ModelKey:
    """The bundled model in a folder of its own, with a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    loaded = ta.load("bundled")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
    )
    loaded.tokenizer.save_pretrained(folder)
    return ModelKey(str(folder))


@pytest.mark.parametrize("kind", ["a long text among short ones", "chats"])
def test_python_and_shell_read_the_text_as_the_page_does(registry, chatty, tmp_path, monkeypatch, capsys, kind):
    if kind == "chats":
        said = [[{"role": "user", "content": text}] for text in text_source.sample("stories").texts[:30]]
        text = text_source.TextSource("calibration", tuple(map(json.dumps, said)), "file", is_chat=True)
    else:
        story = " ".join(text_source.sample("stories").texts[:30])
        text = text_source.TextSource("calibration", (story, *text_source.sample("stories").texts[30:33]), "file")
    session = planned(registry, chatty, text, Choice(metric="wanda"))
    calibration = session.scored.calibration
    assert calibration.num_samples == 8 and (calibration.lengths[0] == 48)
    assert ("windows of 48" in calibration.protocol) == (kind != "chats")
    assert all(row[0] == session.scored.tokenizer.bos_token_id for row in calibration.rows())
    (tmp_path / python_code.CALIBRATION_FILE).write_text(text_source.as_jsonl(text), encoding="utf-8")
    recipe = Recipe.of_plan(session.scored, session.choice, session.plan)
    names = run(code(recipe), tmp_path, monkeypatch)
    assert names["calibration"].fingerprint == calibration.fingerprint
    assert names["plan"] == session.plan
    lines = commands(recipe).replace("prune", "plan", 1)
    shell.run(
        lines.replace(f"--output {python_code.OUTPUT_FOLDER}", "--output plan.json"), tmp_path, monkeypatch, capsys
    )
    assert ta.PruningPlan.from_json((tmp_path / "plan.json").read_text()).layers == session.plan.layers


def own_text(tmp_path) -> text_source.TextSource:
    texts = text_source.sample("stories").texts[:30]
    (tmp_path / "calibration.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8"
    )
    return text_source.TextSource("notes.jsonl", texts, "file")


def test_the_held_out_part_measures_by_the_same_lines_before_and_after_the_cut(
    registry, untimed, tmp_path, monkeypatch, capsys
):
    sampling = replace(SAMPLING, held_out=0.2)
    session = planned(registry, BUNDLED, own_text(tmp_path), Choice(attention=0.25, mlp=0.5), sampling)
    size = Size(300, beside=False)
    monkeypatch.setattr(python_code, "size_of", lambda name, scored: size)
    options = replace(session.options, repair="least_squares", measure_on=HELD_OUT)
    recipe = Recipe.of_session(replace(session, options=options))
    watch = Watch("test")
    result = pruning.cut(registry, session, "least_squares", watch)
    result = measuring.measure(registry, "visitor", result, session.scored.held_out, watch, size=size)
    assert code(recipe) == code(Recipe.of_result(result))
    assert commands(recipe) == commands(Recipe.of_result(result))
    assert result.overlap == 0 and result.protocol.startswith("notes.jsonl, held out: ")
    names = run(code(recipe), tmp_path, monkeypatch)
    assert names["report"].perplexity == pytest.approx(result.report.perplexity, rel=1e-5)
    assert names["evaluation"].num_tokens <= 300 < session.scored.held_out_tokens
    assert not set(names["calibration_texts"]) & set(names["evaluation_texts"])
    shutil.rmtree(tmp_path / python_code.OUTPUT_FOLDER)
    lines = commands(recipe).rstrip() + " --json --no-proof --no-speed"
    printed = json.loads(shell.run(lines, tmp_path, monkeypatch, capsys))
    assert printed["report"]["perplexity"] == pytest.approx(result.report.perplexity, rel=1e-5)
    assert printed["evaluation"]["overlap"] == 0


def test_a_searched_cut_is_told_before_it(registry):
    session = planned(registry, BUNDLED, text_source.sample("stories"), Choice(attention=0.25, mlp=0.5))
    lines, line = code(Recipe.of_session(session)), commands(Recipe.of_session(session))
    assert "plan = ta.search_plan(" in lines and 'compensation="best"' in lines
    assert "evaluation_mixed.jsonl" in lines and "--metric search" in line and "--compensation best" in line
    plain = replace(session, options=replace(session.options, search=False, measure_on="stories"))
    assert 'ta.score(loaded, statistics, metric="transact"' in code(Recipe.of_session(plain))
    assert "evaluation_stories.jsonl" in commands(Recipe.of_session(plain))
