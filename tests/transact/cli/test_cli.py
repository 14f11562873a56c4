"""The command line says what the Python API says, to the last bit, and refuses with one sentence."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

import transact as ta
from tests.conftest import ROOT, read_texts
from transact.cli import main
from transact.cli.catalogue import COMMANDS
from transact.spec.locks import NO_LOCKS

SAMPLES = ROOT / "assets" / "samples"
SAMPLING = ("--num-samples", "4", "--seq-len", "48", "--seed", "3")
SHARES = ("--attention-sparsity", "0.25", "--mlp-sparsity", "0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A few texts, as the commands read them."""
    folder = tmp_path_factory.mktemp("texts")
    for name, source, count in (("calibration", "stories", 8), ("evaluation", "evaluation_stories", 3)):
        lines = (SAMPLES / f"{source}.jsonl").read_text(encoding="utf-8").split("\n")[:count]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "document.txt").write_text("\n\n".join(read_texts(folder / "calibration.jsonl")), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def loaded():
    return ta.load("bundled")


@pytest.fixture(scope="module")
def statistics(loaded, folder):
    texts = read_texts(folder / "calibration.jsonl")
    calibration = ta.CalibrationSet.from_texts(
        texts, loaded.tokenizer, num_samples=4, seq_len=48, seed=3, name="calibration"
    )
    return ta.observe(loaded, calibration, gram=True)


@pytest.fixture(scope="module")
def evaluation(loaded, folder):
    texts = read_texts(folder / "evaluation.jsonl")
    return ta.EvaluationSet.from_texts(texts, loaded.tokenizer, seq_len=64, name="evaluation")


@pytest.fixture(scope="module")
def row(loaded, statistics, evaluation):
    """A repaired and measured result, as Python makes it."""
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    plan = ta.make_plan(ta.score(loaded, statistics, metric="wanda", seed=3), loaded.spec, target)
    pruned = ta.prune(loaded, plan, compensation="least_squares", statistics=statistics)
    return plan, pruned, ta.evaluate(pruned, evaluation, reference=loaded, speed=False)


@pytest.fixture
def run(capsys, folder, tmp_path, monkeypatch):
    """Run a command on the bundled model, in an empty folder; returns its JSON."""
    monkeypatch.chdir(tmp_path)

    def run(command: str, *arguments) -> dict:
        assert main([command, "--model", "bundled", "--json", *map(str, arguments)]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return json.loads(captured.out)

    return run


@pytest.fixture
def calibrated(folder):
    return ("--calibration", str(folder / "calibration.jsonl"), *SAMPLING)


@pytest.fixture
def measured(folder):
    return ("--evaluation", str(folder / "evaluation.jsonl"), "--evaluation-seq-len", "64", "--no-speed")


def test_scores_are_those_of_the_library(run, calibrated, loaded, statistics, tmp_path):
    values = run("score", *calibrated, "--metric", "random", "--output", "scores.json")
    scores = ta.score(loaded, statistics, metric="random", seed=3)
    assert values["calibration"] == vars(statistics.calibration)
    assert len(values["layers"]) == loaded.spec.num_hidden_layers
    for index, layer in enumerate(values["layers"]):
        for name, numbers in layer.items():
            assert numbers == getattr(scores, name)[index].tolist()
    assert json.loads((tmp_path / "scores.json").read_text()) == values


@pytest.mark.parametrize(
    ("options", "target"),
    [
        (SHARES, lambda spec: ta.PruningTarget.from_sparsity(spec, attention=0.25, mlp=0.5)),
        (("--mlp-sparsity", "0.3"), lambda spec: ta.PruningTarget.from_sparsity(spec, mlp=0.3)),
        (
            (*SHARES, "--multiple-of", "32", "--groups-multiple-of", "2"),
            lambda spec: ta.PruningTarget.from_sparsity(
                spec, attention=0.25, mlp=0.5, multiple_of=32, groups_multiple_of=2
            ),
        ),
        (
            ("--parameters", "2e6", "--multiple-of", "16"),
            lambda spec: ta.PruningTarget.from_parameters(spec, 2_000_000, multiple_of=16),
        ),
        (("--parameters", "2e6"), lambda spec: ta.PruningTarget.from_parameters(spec, 2_000_000)),
        (("--keep-head-groups", "3", "--keep-channels", "200"), lambda spec: ta.PruningTarget(3, 200)),
        (
            ("--keep-head-groups", "4,3,2,1,4,4", "--keep-channels", "512,100,64,1,90,7"),
            lambda spec: ta.PruningTarget((4, 3, 2, 1, 4, 4), (512, 100, 64, 1, 90, 7)),
        ),
        (
            ("--mlp-sparsity", "0.5", "--keep-value-dim", "9"),
            lambda spec: replace(ta.PruningTarget.from_sparsity(spec, mlp=0.5), keep_value_dim=9),
        ),
        (("--keep-layers", "4"), lambda spec: replace(ta.PruningTarget.from_sparsity(spec), keep_layers=4)),
        (
            ("--keep-head-groups", "3", "--keep-channels", "200", "--keep-layers", "5"),
            lambda spec: ta.PruningTarget(3, 200, keep_layers=5),
        ),
    ],
)
def test_plans_are_those_of_the_library(run, calibrated, loaded, statistics, tmp_path, options, target):
    values = run("plan", *calibrated, *options)
    expected = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target(loaded.spec))
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == expected.to_json()
    assert values["plan"] | expected.summary() == values["plan"]
    assert values["plan"]["digest"] == expected.digest


@pytest.mark.slow
def test_gradients_are_taken_where_the_metric_needs_them(run, calibrated, loaded, folder, tmp_path):
    texts = read_texts(folder / "calibration.jsonl")
    calibration = ta.CalibrationSet.from_texts(
        texts, loaded.tokenizer, num_samples=4, seq_len=48, seed=3, name="calibration"
    )
    scores = ta.score(loaded, ta.observe(loaded, calibration, taylor=True), metric="taylor")
    values = run("score", *calibrated, "--metric", "taylor")
    assert values["layers"][2]["mlp_channels"] == scores.mlp_channels[2].tolist()
    run("plan", *calibrated, *SHARES, "--metric", "taylor", "--allocation", "global")
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    expected = ta.make_plan(scores, loaded.spec, target, allocation="global")
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == expected.to_json()


def test_locks_are_read_from_a_file(run, calibrated, loaded, statistics, tmp_path):
    locks = ta.Locks(keep_head_groups=frozenset({(0, 0)}), remove_channels=frozenset({(5, 3), (1, 7)}))
    (tmp_path / "locks.json").write_text(json.dumps(locks.to_dict()))
    run("plan", *calibrated, *SHARES, "--locks", "locks.json", "--output", "new/locked.json")
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    expected = ta.make_plan(ta.score(loaded, statistics), loaded.spec, target, locks=locks)
    plan = ta.PruningPlan.from_json((tmp_path / "new" / "locked.json").read_text())
    assert plan == expected
    assert 7 not in plan.layers[1].kept_channels and 0 in plan.layers[0].kept_head_groups


def test_a_document_is_cut_into_windows(run, loaded, folder, tmp_path):
    run("plan", "--calibration", folder / "document.txt", *SAMPLING, *SHARES)
    calibration = ta.CalibrationSet.from_document(
        (folder / "document.txt").read_text(encoding="utf-8"),
        loaded.tokenizer, num_samples=4, seq_len=48, seed=3, name="document",
    )  # fmt: skip
    assert calibration.num_samples == 4
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    expected = ta.make_plan(ta.score(loaded, ta.observe(loaded, calibration)), loaded.spec, target)
    assert (tmp_path / "plan.json").read_text() == expected.to_json()


@pytest.mark.slow
def test_one_line_reproduces_a_row(run, calibrated, measured, row, tmp_path):
    plan, pruned, report = row
    values = run(
        "prune", *calibrated, *SHARES, "--metric", "wanda", "--compensation", "least_squares", *measured,
        "--output", "pruned",
    )  # fmt: skip
    assert values["report"] == json.loads(json.dumps(report.to_dict()))
    assert values["plan"]["digest"] == plan.digest
    assert values["evaluation"]["overlap"] == 0.0
    assert ta.PruningPlan.from_json((tmp_path / "pruned" / "plan.json").read_text()) == plan
    ta.save(pruned, tmp_path / "expected", dtype=pruned.file_dtype)
    here, there = (load_file(tmp_path / name / "model.safetensors") for name in ("pruned", "expected"))
    assert here.keys() == there.keys() and all(here[name].equal(there[name]) for name in here)
    assert {name: here[name].dtype for name in here} == {name: there[name].dtype for name in there}
    proof = values["saved"]["proof"]
    assert proof["passed"] and proof["same_text"] and proof["largest_difference"] <= proof["tolerance"]


@pytest.mark.slow
def test_a_part_of_the_calibration_text_measures(run, calibrated, loaded, folder):
    values = run(
        "prune", *calibrated, *SHARES, "--held-out", "0.3", "--evaluation-tokens", "100", "--evaluation-seq-len", "64",
        "--no-speed",
    )  # fmt: skip
    kept, held = ta.hold_out(read_texts(folder / "calibration.jsonl"), 0.3)
    calibration = ta.CalibrationSet.from_texts(
        kept, loaded.tokenizer, num_samples=4, seq_len=48, seed=3, windows="auto"
    )
    held = ta.EvaluationSet.from_texts(held, loaded.tokenizer, seq_len=64, windows="auto").up_to(100)
    assert values["calibration"]["fingerprint"] == calibration.fingerprint
    assert values["evaluation"]["fingerprint"] == held.fingerprint
    assert values["evaluation"]["overlap"] == 0 and held.num_tokens <= 100


def test_our_best_choice_and_repair_in_one_line(run, calibrated, measured, loaded, statistics, evaluation, tmp_path):
    values = run(
        "prune", *calibrated, *SHARES, "--metric", "search", "--compensation", "best", *measured,
        "--output", "pruned", "--no-proof",
    )  # fmt: skip
    assert values["saved"]["proof"] is None
    target = ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    plan = ta.search_plan(loaded, statistics, target)
    assert ta.PruningPlan.from_json((tmp_path / "pruned" / "plan.json").read_text()) == plan
    pruned = ta.prune(loaded, plan, compensation="best", statistics=statistics)
    assert values["report"]["perplexity"] == ta.perplexity(pruned, evaluation)
    assert values["compensation"] == "best" and values["plan"]["metric"] == "search"


@pytest.mark.slow
def test_the_search_goes_with_every_repair(run, calibrated, measured, loaded, statistics, evaluation):
    values = run("prune", *calibrated, *SHARES, "--metric", "search", "--compensation", "least_squares", *measured)
    plan = ta.search_plan(loaded, statistics, ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5))
    pruned = ta.prune(loaded, plan, compensation="least_squares", statistics=statistics)
    assert values["report"]["perplexity"] == ta.perplexity(pruned, evaluation)


def test_a_saved_row_is_measured_again(capsys, measured, row, tmp_path):
    _, pruned, report = row
    ta.save(pruned, tmp_path / "pruned", dtype=pruned.file_dtype)
    assert main(["evaluate", "--model", str(tmp_path / "pruned"), "--reference", "bundled", "--json", *measured]) == 0
    again = json.loads(capsys.readouterr().out)["report"]
    for name in ("perplexity", "reference_perplexity", "top1_agreement", "kl_divergence", "parameters"):
        assert again[name] == getattr(report, name)


@pytest.mark.slow
def test_two_steps_come_to_what_one_does(run, calibrated, measured, row, tmp_path):
    _, _, report = row
    run("plan", *calibrated, *SHARES, "--metric", "wanda")
    values = run(
        "prune", "--plan", "plan.json", *calibrated, "--compensation", "least_squares", *measured, "--prompt", "Once"
    )
    assert values["report"]["perplexity"] == report.perplexity
    assert values["report"]["kl_divergence"] == report.kl_divergence
    assert values["report"]["generation"] and values["report"]["reference_generation"]
    assert "saved" not in values
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]


def test_a_plan_alone_needs_no_text(run, calibrated, loaded, tmp_path):
    run("export", "--kind", "plan", *calibrated, *SHARES, "--output", "plan.json")
    values = run("export", "--plan", "plan.json", "--output", "pruned", "--no-proof")
    plan = ta.PruningPlan.from_json((tmp_path / "plan.json").read_text())
    assert values["calibration"] is None and values["saved"]["parameters_written"] == plan.spec.num_parameters
    weights = load_file(tmp_path / "pruned" / "model.safetensors")
    expected = ta.prune(loaded, plan).model.state_dict()
    assert all(weights[name].equal(expected[name].to(weights[name].dtype)) for name in weights)


def test_layers_of_different_sizes_as_they_are(run, calibrated, tmp_path):
    written = ("--allocation", "global", "--metric", "magnitude", "--layers", "compact", "--output", "compact")
    saved = run("export", *calibrated, *SHARES, *written)["saved"]
    assert saved["compact"] and saved["proof"] is None
    again = ta.load(str(tmp_path / "compact"))
    assert not again.spec.is_uniform and again.spec.num_parameters == saved["parameters_written"]


def test_a_gguf_file_is_that_of_the_library(run, calibrated, loaded, tmp_path):
    run("export", "--kind", "plan", *calibrated, *SHARES, "--output", "plan.json")
    kind = ("--kind", "gguf", "--file-type", "q8_0")
    saved = run("export", "--plan", "plan.json", *kind, "--output", "cli.gguf")["saved"]
    plan = ta.PruningPlan.from_json((tmp_path / "plan.json").read_text())
    report = ta.save_gguf(ta.prune(loaded, plan), tmp_path / "python.gguf", file_type="q8_0")
    assert (tmp_path / "cli.gguf").read_bytes() == (tmp_path / "python.gguf").read_bytes()
    assert saved == {**vars(report), "path": str(tmp_path / "cli.gguf"), "notes": list(report.notes)}


def test_push_says_where_the_model_is(capsys, monkeypatch):
    asked = []

    def push(folder, repo_id, **terms):
        asked.append((str(folder), repo_id, terms["private"], terms["overwrite"]))
        return ta.Pushed(f"me/{repo_id}", f"https://hub/me/{repo_id}", "c0ffee", terms["private"])

    monkeypatch.setattr(ta, "push", push)
    assert main(["push", "out", "--repo", "small"]) == 0
    assert capsys.readouterr().out == "The model is at https://hub/me/small (private).\n"
    assert main(["push", "out", "--repo", "small", "--public", "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == "c0ffee"
    assert asked == [("out", "small", True, False), ("out", "small", False, True)]


@pytest.mark.slow
def test_text_that_scored_is_told_where_it_measures(capsys, calibrated, folder):
    line = ["prune", "--model", "bundled", *calibrated, *SHARES, "--no-speed"]
    # four of the eight texts scored, each cut off at 48 tokens; all eight measure, each in two windows
    line += ["--evaluation", str(folder / "calibration.jsonl"), "--evaluation-seq-len", "48"]
    assert main(line) == 0
    assert "25% of the measured sequences also stand in the calibration text" in capsys.readouterr().out
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluation"]["overlap"] == 0.25


@pytest.mark.parametrize("command", ["", *(command.name for command in COMMANDS)])
def test_help_teaches(capsys, command):
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert not command or f"python -m transact {command} " in shown.partition("example:")[2]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_example_is_a_line_that_can_be_typed(command, monkeypatch):
    reached = []
    for name in ("load", "push"):
        monkeypatch.setattr(ta, name, lambda source, *_, **__: reached.append(source) or sys.exit(99))
    monkeypatch.setattr(ta, "preflight", lambda *_, **__: SimpleNamespace(fits=True))
    monkeypatch.setattr("transact.cli.steps.read_plan", lambda path: None)
    monkeypatch.setattr(ta, "check_tasks", lambda tasks, **_: None)  # reads thousands of files
    monkeypatch.chdir(ROOT)
    words = command.example.replace("\\\n", " ").split()
    assert words[:3] == ["python", "-m", "transact"]
    with pytest.raises(SystemExit) as left:
        main(words[3:])
    assert left.value.code == 99 and len(reached) == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("plan --calibration C", "nothing given to say how much to remove"),
        ("compress --calibration C --size 0.5", "give --output to save the result"),
        ("compress --calibration C --output o", "give --size, or --repeat"),
        ("compress --calibration C --size 0.5 --repeat R --output o", "give --size, or --repeat"),
        (
            "compress --calibration C --size 1.5 --output o",
            "--size is 1.5; give the share of the parameters",
        ),
        ("compress --calibration C --size 0.5 --minutes 0 --output o", "--minutes is 0; give a number above 0"),
        ("plan --calibration C --mlp-sparsity 0.5 --parameters 1e6", "several ways given"),
        ("plan --calibration C --keep-channels 3", "are given together"),
        ("plan --calibration C --keep-channels 3,x --keep-head-groups 1", "'3,x' is neither a whole number nor"),
        ("plan --calibration C --parameters 1e6 --keep-value-dim 3", "--parameters knows whole heads alone"),
        ("plan --calibration C --parameters 1e6 --keep-layers 3", "--parameters counts on all layers"),
        ("plan --mlp-sparsity 0.5", "--calibration"),
        ("plan --calibration C --mlp-sparsity half", "invalid float"),
        ("plan --calibration C --keep-head-groups 2 --keep-channels 9 --multiple-of 4", "--multiple-of rounds shares"),
        ("plan --calibration C --mlp-sparsity 0.5 --multiple-of 4 --allocation global", "--allocation uniform"),
        ("prune --output o --plan p --multiple-of 4", "decided already what --multiple-of would"),
        ("plan --calibration C --mlp-sparsity 0.5 --metric nonsense", "transact"),
        ("score --calibration C --num-samples many", "invalid int"),
        ("prune --calibration C --mlp-sparsity 0.5", "give --output"),
        ("prune --output out", "give --plan, or --calibration"),
        ("prune --calibration C --mlp-sparsity 0.5 --held-out 1", "above 0 and below 1"),
        ("prune --plan P --held-out 0.1", "give --calibration"),
        ("recover --output o --calibration C --mlp-sparsity 0.5 --held-out nan", "above 0 and below 1"),
        ("prune --output out --plan P --metric wanda --locks L", "what --metric, --locks would"),
        ("plan --calibration C --mlp-sparsity 0.5 --metric search --allocation global", "does not know --allocation"),
        ("plan --calibration C --mlp-sparsity 0.5 --widths free --allocation global", "leave --allocation out"),
        ("plan --scores S --mlp-sparsity 0.5 --widths free", "give --calibration instead of --scores"),
        ("recover --output o --calibration C --mlp-sparsity 0.5 --widths free", "unrecognized arguments"),
        ("score --calibration C --metric search", "invalid choice"),
        ("prune --output out --plan P --compensation least_squares", "give --calibration"),
        ("export --output out --plan P --kind zip", "invalid choice"),
        ("export --output out --plan P --file-type f16", "belongs to --kind gguf"),
        ("export --output out --kind plan --calibration C --mlp-sparsity 0 --compensation least_squares", "no weights"),
        ("evaluate --evaluation C --reference-revision main", "belongs to --reference"),
        ("evaluate", "--evaluation"),
        ("tasks --limit 3", "--tasks"),
        ("tasks --tasks a --reference-revision main", "belongs to --reference"),
        ("prun", "invalid choice"),
    ],
)
def test_wrong_usage(capsys, monkeypatch, line, sentence):
    monkeypatch.setattr(ta, "load", None)
    command, *rest = line.split()
    with pytest.raises(SystemExit) as left:
        main([command, "--model", "bundled", *rest])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.out == ""


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("text.jsonl", b"", "is empty"),
        ("text.txt", b" \n", "is empty"),
        (
            "text.jsonl",
            b'{"text": "a"}\n{"body": "b"}\n',
            "Line 2 of text.jsonl has no text under 'text' (it has 'body')",
        ),
        ("text.jsonl", b'{"text": 3}', "Line 1 of text.jsonl has no text"),
        ("text.jsonl", b'["text"]', "not an object"),
        ("text.jsonl", b"Once upon a time", "Line 1 of text.jsonl is not JSON"),
        ("text.jsonl", b"[" * 100_000, "is not JSON"),
        ("text.txt", b"caf\xe9", "text.txt is not UTF-8 text (byte 3 cannot be read)"),
        ("text.pdf", b"text", "not a kind of text that is read here. Give one of .txt, .jsonl, .json, .csv, .parquet"),
        ("text.csv", b"id,story\n1,a", "Line 2 of text.csv has no text under 'text' (it has 'id', 'story'). Name the"),
        ("text.jsonl", b'{"text": "a"}\n{"text": null}\n{"text": 3}', "Line 3 of text.jsonl has no text under 'text'"),
        ("text.json", b'[{"text": "a"}, {"story": "b"}]', "Item 2 of text.json has no text under 'text'"),
        ("text.json", b'{"text": ', "text.json is not JSON"),
        ("text.parquet", b"PAR1", "text.parquet cannot be read as parquet"),
        ("text.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}', "or read chats with --chat"),
        ("text.jsonl", None, "There is no file text.jsonl"),
    ],
)
def test_text_files_that_are_refused(capsys, monkeypatch, tmp_path, name, content, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ta, "load", None)  # refused before a model is loaded
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for line in (["score", "--calibration", name], ["evaluate", "--evaluation", name]):
        assert main([*line, "--model", "bundled"]) == 1
        captured = capsys.readouterr()
        assert sentence in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_text_of_another_column_and_of_odd_line_ends(run, tmp_path):
    lines = ['{"body": "One\u2028two."}', "", '{"body": "Three."}']
    (tmp_path / "text.jsonl").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8", newline="")
    assert run("score", "--calibration", "text.jsonl", "--column", "body")["calibration"]["num_samples"] == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--mlp-sparsity", "1"), "MLP sparsity is 1.0"),
        (("--attention-sparsity", "-0.1"), "attention sparsity is -0.1"),
        (("--parameters", "9"), "9 parameters cannot be reached"),
        (("--keep-head-groups", "5", "--keep-channels", "5"), "Layer 0 was told to keep 5 head groups; it has 4"),
        (("--keep-head-groups", "1,2", "--keep-channels", "5"), "has 2 entries, but the model has 6 layers"),
        ((*SHARES, "--locks", "locks.json"), "A lock names layer 6"),
        ((*SHARES, "--dtype", "float32", "--device", "abacus"), "no device named 'abacus'"),
        ((*SHARES, "--num-samples", "0"), "0 samples were asked for"),
    ],
)
def test_what_cannot_be_is_refused_before_the_text_is_read(
    capsys, calibrated, monkeypatch, tmp_path, options, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ta, "observe", None)
    (tmp_path / "locks.json").write_text('{"keep_channels": [[6, 0]]}')
    assert main(["plan", "--model", "bundled", *calibrated, *options]) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "given was a list"),
        ('{"keep": []}', "given was 'keep'"),
        ('{"keep_channels": [[0]]}', "keep_channels must be a list of"),
        ('{"keep_channels": [[0, true]]}', "keep_channels must be a list of"),
        ('{"remove_head_groups": 3}', "remove_head_groups must be a list of"),
    ],
)
def test_files_that_hold_no_locks(capsys, calibrated, monkeypatch, tmp_path, content, sentence):
    monkeypatch.setattr(ta, "load", None)
    (tmp_path / "locks.json").write_text(content)
    assert main(["plan", "--model", "bundled", *calibrated, *SHARES, "--locks", str(tmp_path / "locks.json")]) == 1
    assert sentence in capsys.readouterr().err


def test_locks_round_trip():
    locks = ta.Locks(keep_channels=frozenset({(2, 1), (0, 9)}), remove_head_groups=frozenset({(1, 1)}))
    assert locks.to_dict()["keep_channels"] == [[0, 9], [2, 1]]
    assert ta.Locks.from_dict(json.loads(json.dumps(locks.to_dict()))) == locks
    assert ta.Locks.from_dict({}) == NO_LOCKS


def test_plans_that_are_refused(capsys, calibrated, folder, loaded, tmp_path, monkeypatch):
    (tmp_path / "none.json").write_text("{}")
    line = ["export", "--model", "bundled", "--output", str(tmp_path / "out"), "--plan"]
    assert main([*line, str(tmp_path / "none.json")]) == 1
    assert "This is no plan that can be read" in capsys.readouterr().err
    shapes = ta.PruningPlan.from_json(_plan_of_another_model(loaded))
    (tmp_path / "other.json").write_text(shapes.to_json())
    monkeypatch.setattr(ta, "observe", None)
    repaired = ["--compensation", "least_squares", *calibrated]
    assert main([*line, str(tmp_path / "other.json"), *repaired]) == 1
    assert "made for a model of the same shapes but other weights" in capsys.readouterr().err


def _plan_of_another_model(loaded) -> str:
    scores = ta.ImportanceScores.random(loaded.spec)
    values = json.loads(ta.make_plan(scores, loaded.spec, ta.PruningTarget(2, 9)).to_json())
    return json.dumps(values | {"fingerprint": f"{loaded.spec.fingerprint}/0123456789abcdef"})


@pytest.mark.parametrize(
    ("line", "taken"),
    [("score", "file"), ("plan --mlp-sparsity 0.5", "file"), ("prune --mlp-sparsity 0.5", "folder"),
     ("prune --mlp-sparsity 0.5", "file"), ("export --mlp-sparsity 0.5", "folder"),
     ("export --mlp-sparsity 0.5 --kind plan", "empty folder"), ("export --mlp-sparsity 0.5 --kind gguf", "file")],
)  # fmt: skip
def test_nothing_is_replaced(capsys, calibrated, monkeypatch, tmp_path, line, taken):
    monkeypatch.setattr(ta, "load", None)
    output = tmp_path / "taken"
    if taken == "file":
        output.write_text("precious")
    else:
        output.mkdir()
        if taken == "folder":
            (output / "precious").touch()
    command, *options = line.split()
    assert main([command, "--model", "bundled", *calibrated, *options, "--output", str(output)]) == 1
    assert f"{output} exists and" in capsys.readouterr().err
    assert taken != "file" or output.read_text() == "precious"


def test_a_place_that_cannot_be_written(capsys, calibrated, tmp_path):
    (tmp_path / "file").touch()
    line = ["plan", "--model", "bundled", *calibrated, *SHARES, "--output", str(tmp_path / "file" / "plan.json")]
    assert main(line) == 1
    captured = capsys.readouterr()
    assert "Choose another place." in captured.err and captured.out == ""


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_are_drawn_on_terminals_alone(capsys, calibrated, monkeypatch):
    line = ["score", "--model", "bundled", *calibrated]
    for watched, options, drawn in (
        (_Terminal(), [], True),
        (_Terminal(), ["--quiet"], False),
        (io.StringIO(), [], False),
    ):
        monkeypatch.setattr(sys, "stderr", watched)
        assert main([*line, *options]) == 0
        assert ("Scoring" in watched.getvalue()) is drawn and bool(watched.getvalue()) is drawn
    shown = capsys.readouterr().out
    assert "bundled, transact on calibration: 4 sequences, 192 tokens" in shown and "Scoring" not in shown


def test_ctrl_c(capsys, calibrated, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ta, "observe", stop)
    assert main(["score", "--model", "bundled", *calibrated]) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_what_a_person_reads(capsys, calibrated, folder, loaded, row, tmp_path):
    line = ["prune", "--model", "bundled", *calibrated, *SHARES, "--evaluation", str(folder / "evaluation.jsonl")]
    assert main([*line, "--output", str(tmp_path / "pruned")]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    cells = {line.partition("  ")[0]: line.split() for line in captured.out.splitlines()}
    before, after = loaded.spec, row[0].spec
    change = f"{after.num_parameters / before.num_parameters - 1:.1%}"
    assert cells["parameters"][1:] == [f"{before.num_parameters:,}", f"{after.num_parameters:,}", change]
    kept = [str(spec.layers[0].intermediate_size) for spec in (before, after)]
    assert cells["channels per layer"][-2:] == kept
    assert "decode, tokens per second" in cells and "perplexity" in cells
    assert f"The checkpoint is in {tmp_path / 'pruned'} (LlamaForCausalLM). Proved: a fresh process" in captured.out


def test_widths_are_searched_for(run, calibrated, loaded, monkeypatch, tmp_path):
    """The library's own search, with the matrices that it needs, says how many channels each layer keeps."""
    widths = (400, 300, 307, 307, 307, 221)

    def search(given, statistics, target, **named):
        assert target == ta.PruningTarget.from_sparsity(loaded.spec, mlp=0.4) and statistics.mlp[0].gram is not None
        return replace(target, keep_channels=widths)

    monkeypatch.setattr(ta, "search_widths", search)
    values = run("plan", *calibrated, "--mlp-sparsity", 0.4, "--widths", "free", "--output", tmp_path / "plan")
    plan = ta.PruningPlan.from_json((tmp_path / "plan").read_text())
    assert tuple(len(layer.kept_channels) for layer in plan.layers) == widths
    assert values["plan"]["achieved"]["keep_channels"] == list(widths)


@pytest.mark.slow
def test_a_size_and_a_time(capsys, run, calibrated, measured, loaded, tmp_path):
    asked = ("--size", "0.9", "--minutes", "0.03")
    values = run("compress", *calibrated, *asked, *measured, "--no-proof", "--output", tmp_path / "smaller")
    assert values["report"]["parameters"] <= 0.9 * loaded.spec.num_parameters
    assert sum(values["recipe"].values()) < 60
    again = ta.load(str(tmp_path / "smaller"))
    assert again.spec.num_hidden_layers == 6 and (tmp_path / "smaller" / "plan.json").exists()
    assert main(["compress", "--model", "bundled", *calibrated, *asked, "--widths", "uniform", *measured]) == 0
    shown = capsys.readouterr().out
    assert "Expected: reading" in shown and "perplexity" in shown
    repeated = run("compress", *calibrated, "--repeat", values["repeat"], *measured)
    assert repeated["repeat"] == values["repeat"] in (tmp_path / "smaller" / "README.md").read_text(encoding="utf-8")
    assert repeated["report"]["perplexity"] == values["report"]["perplexity"]


def test_layers_that_go_are_told_and_cut(capsys, run, calibrated, loaded, tmp_path):
    values = run("prune", *calibrated, "--keep-layers", 4, "--no-proof", "--output", tmp_path / "pruned")
    kept = ta.PruningPlan.from_json((tmp_path / "pruned" / "plan.json").read_text()).kept_layers
    assert values["plan"]["achieved"]["kept_layers"] == list(kept) and len(kept) == 4
    assert ta.load(str(tmp_path / "pruned")).spec.num_hidden_layers == 4
    line = ["plan", "--model", "bundled", *calibrated, "--keep-layers", "4", "--output", str(tmp_path / "plan")]
    assert main(line) == 0
    removed = ", ".join(str(layer) for layer in range(6) if layer not in kept)
    assert re.search(rf"^layers +6 +4 +without {removed}$", capsys.readouterr().out, re.MULTILINE)
    again = run("prune", "--plan", tmp_path / "plan", "--no-proof", "--output", tmp_path / "again")
    assert again["plan"]["achieved"] == values["plan"]["achieved"]


@pytest.mark.slow
def test_as_a_program(folder, tmp_path):
    line = ["-m", "transact", "evaluate", "--model", tmp_path / "nowhere", "--evaluation", folder / "evaluation.jsonl"]
    refused = subprocess.run([sys.executable, *map(str, line)], cwd=ROOT, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("There is no folder") and refused.stderr.count("\n") == 1
