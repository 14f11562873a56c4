"""score and prune on the command line, layer by layer: the same numbers, by choice or where memory is short."""

import json

import pytest
from safetensors.torch import load_file

import transact as ta
from tests.conftest import ROOT, read_texts
from transact.cli import main
from transact.models import preflight

SAMPLING = ("--num-samples", "4", "--seq-len", "48", "--seed", "3")
SHARES = ("--attention-sparsity", "0.25", "--mlp-sparsity", "0.5")


@pytest.fixture
def text(tmp_path):
    lines = (ROOT / "assets" / "samples" / "stories.jsonl").read_text(encoding="utf-8").split("\n")[:8]
    (tmp_path / "text.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "text.jsonl"


@pytest.fixture
def run(capsys, text, monkeypatch):
    monkeypatch.chdir(text.parent)

    def run(command: str, *arguments: str) -> dict:
        given = (command, "--model", "bundled", "--json", "--calibration", str(text), *SAMPLING, *arguments)
        code, captured = main(given), capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return run


@pytest.fixture
def refused(capsys, text, monkeypatch):
    monkeypatch.chdir(text.parent)

    def refused(command: str, *arguments: str) -> str:
        assert main((command, "--model", "bundled", "--calibration", str(text), *SAMPLING, *arguments)) == 1
        return capsys.readouterr().err

    return refused


@pytest.fixture
def short_of_memory(monkeypatch):
    """Less than the bundled model needs, and enough for one of its layers."""
    card = ta.preflight("bundled")
    assert card.streamed_bytes < card.required_bytes
    monkeypatch.setattr(preflight, "free_bytes", lambda device: card.required_bytes - 1)


def test_scores_are_the_same(run):
    streamed = run("score", "--metric", "wanda", "--stream", "--output", "scores.json")
    whole = run("score", "--metric", "wanda", "--stream", "never")
    for mine, theirs in zip(streamed["layers"], whole["layers"], strict=True):
        assert mine["mlp_channels"] == pytest.approx(theirs["mlp_channels"], rel=1e-5)
        assert mine["head_groups"] == pytest.approx(theirs["head_groups"], rel=1e-5)


def test_where_memory_is_short_it_streams_unasked(run, refused, short_of_memory, text):
    assert "--stream" in refused("score", "--stream", "never")
    assert "--stream" in refused("plan", *SHARES)
    answer = run("prune", *SHARES, "--compensation", "least_squares", "--output", "out")
    assert answer["streamed"] and answer["saved"]["proof"] is None
    loaded = ta.load_streamed("bundled")
    calibration = ta.CalibrationSet.from_texts(
        read_texts(text), loaded.tokenizer, num_samples=4, seq_len=48, seed=3, name="text"
    )
    statistics = ta.stream_observe(loaded, calibration, gram="by_layer")
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target)
    ta.stream_prune(loaded, plan, text.parent / "python", compensation="least_squares", statistics=statistics)
    mine, theirs = (load_file(text.parent / name / "model.safetensors") for name in ("out", "python"))
    assert mine.keys() == theirs.keys() and all(mine[name].equal(each) for name, each in theirs.items())
    assert sorted(entry.name for entry in text.parent.iterdir()) == ["out", "python", "text.jsonl"]


def test_the_result_is_measured_beside_the_dense_model_layer_by_layer(run, text, capsys):
    answer = run("prune", *SHARES, "--stream", "--evaluation", str(text), "--output", "out")
    pruned, dense = ta.load("out"), ta.load("bundled")
    evaluation = ta.EvaluationSet.from_texts(read_texts(text), pruned.tokenizer, seq_len=512)
    expected = ta.evaluate(pruned, evaluation, reference=dense, speed=False)
    for name in ("perplexity", "reference_perplexity", "top1_agreement", "kl_divergence"):
        assert answer["report"][name] == pytest.approx(getattr(expected, name), rel=1e-5)
    named = ("--model", "out", "--reference", "bundled", "--evaluation", str(text), "--stream", "--json")
    assert main(("evaluate", *named)) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    assert report["reference_perplexity"] == pytest.approx(answer["report"]["reference_perplexity"])
    assert report["kl_divergence"] == pytest.approx(answer["report"]["kl_divergence"])


@pytest.mark.parametrize(
    "command, arguments, words",
    [
        ("prune", (*SHARES, "--metric", "search", "--output", "out"), "--metric search runs the whole model"),
        ("prune", (*SHARES, "--metric", "taylor", "--output", "out"), "--metric taylor takes gradients"),
        ("prune", (*SHARES, "--compensation", "best", "--output", "out"), "cannot be streamed"),
        ("prune", (*SHARES, "--evaluation", "text.jsonl"), "Give --output"),
        ("prune", (*SHARES, "--evaluation", "text.jsonl", "--prompt", "Once", "--output", "out"), "cannot write"),
        ("score", ("--metric", "taylor"), "--metric taylor takes gradients"),
    ],
)
def test_what_cannot_be_streamed_is_refused(command, arguments, words, refused, text):
    assert words in refused(command, *arguments, "--stream")
    assert [entry.name for entry in text.parent.iterdir()] == ["text.jsonl"]
