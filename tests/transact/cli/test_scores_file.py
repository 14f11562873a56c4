"""Plans from a file of scores: the same plan as from the scores themselves, and no other model's."""

import json

import pytest
import torch

import transact as ta
from tests.conftest import ROOT
from tests.tiny_models import build, token_ids
from transact.cli import main

SHARES = ("--attention-sparsity", "0.25", "--mlp-sparsity", "0.5")
CALIBRATION = ("--calibration", str(ROOT / "assets" / "samples" / "stories.jsonl"), "--num-samples", "4")


@pytest.mark.parametrize("metric", ["transact", "wanda", "random"])
def test_scores_round_trip(metric):
    loaded = build("llama")
    calibration = ta.CalibrationSet.from_token_ids(token_ids(loaded))
    scores = ta.score(loaded, ta.observe(loaded, calibration, queries=True), metric=metric)
    read = ta.ImportanceScores.from_dict(json.loads(json.dumps(scores.to_dict())), loaded.spec)
    assert (read.metric, read.fingerprint, read.calibration) == (metric, loaded.fingerprint, "token ids")
    for name in ("heads", "head_groups", "attention_channels", "mlp_channels", "rotary_pairs"):
        pairs = zip(getattr(read, name), getattr(scores, name), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda values: values.pop("fingerprint"), "no scores that can be read .KeyError: 'fingerprint'"),
        (lambda values: values.update(metric="guess"), "no scores that can be read .KeyError: 'guess'"),
        (lambda values: values.update(layers=3), "no scores that can be read"),
        (lambda values: values["layers"].pop(), "other shapes"),
        (lambda values: values["layers"][1]["mlp_channels"].pop(), "40 finite numbers are expected"),
        (lambda values: values["layers"][1].update(mlp_channels=[float("nan")] * 40), "40 finite numbers"),
        (lambda values: values["layers"][2].update(attention_channels="x"), "no scores that can be read"),
        (lambda values: values.update(fingerprint="0123/4567"), "other shapes"),
    ],
)
def test_what_holds_no_scores_is_refused(change, sentence):
    spec = build("llama").spec
    values = ta.ImportanceScores.random(spec).to_dict()
    assert ta.ImportanceScores.from_dict(values, spec).metric == "random"
    change(values)
    with pytest.raises(ta.InvalidPlan, match=sentence):
        ta.ImportanceScores.from_dict(values, spec)
    for wrong in (None, [], "x", 3, {}):
        with pytest.raises(ta.InvalidPlan, match="no scores that can be read"):
            ta.ImportanceScores.from_dict(wrong, spec)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A file of scores of the bundled model."""
    file = tmp_path_factory.mktemp("scores") / "scores.json"
    line = ["score", "--model", "bundled", *CALIBRATION, "--metric", "wanda", "--quiet", "--output", str(file)]
    assert main(line) == 0
    return file


def test_the_plan_is_that_of_the_text_and_no_weights_are_read(scored, capsys, monkeypatch, tmp_path):
    direct, from_file = tmp_path / "direct.json", tmp_path / "from_file.json"
    line = ["plan", "--model", "bundled", *SHARES]
    assert main([*line, *CALIBRATION, "--metric", "wanda", "--output", str(direct)]) == 0
    monkeypatch.setattr(ta, "load", None)
    assert main([*line, "--scores", str(scored), "--output", str(from_file)]) == 0
    assert from_file.read_text() == direct.read_text()
    assert "wanda on stories" in capsys.readouterr().out


def test_wrong_files_of_scores_are_refused(scored, capsys, tmp_path):
    def refusal(content: str) -> str:
        file = tmp_path / "wrong.json"
        file.write_text(content)
        line = ["plan", "--model", "bundled", "--scores", str(file), *SHARES]
        assert main([*line, "--output", str(tmp_path / "plan.json")]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1
        return said.err

    values = json.loads(scored.read_text())
    shapes = values["fingerprint"].split("/")[0]
    assert "made for a model of the same shapes but other weights" in refusal(
        json.dumps(values | {"fingerprint": f"{shapes}/0123456789abcdef"})
    )
    assert "is not JSON. Give what the score command writes" in refusal("{")
    assert "no scores that can be read" in refusal("{}")
    other = ta.ImportanceScores.random(build("llama").spec).to_dict()
    assert "a model of other shapes" in refusal(json.dumps(other))
    assert json.loads(scored.read_text())["calibration"]["protocol"].startswith("each text one sequence, BOS in each")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((*SHARES,), "give --calibration to score on, or --scores"),
        (("--scores", "s", "--metric", "wanda", *SHARES), "--scores has decided already what --metric would"),
        (("--scores", "s", "--calibration", "c", *SHARES), "--scores has decided already what --calibration would"),
        (("--scores", "s"), "nothing given to say how much to remove"),
    ],
)
def test_options_that_contradict_scores(capsys, options, sentence):
    with pytest.raises(SystemExit) as left:
        main(["plan", "--model", "bundled", *options])
    assert left.value.code == 2 and sentence in capsys.readouterr().err
