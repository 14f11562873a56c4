"""A written checkpoint is proved by a fresh process; a wrong one is found out and never kept.

Every proof starts a process that imports torch and transformers, so the cases are few and each tells several things.
"""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import transact as ta
from tests.conftest import ROOT, processes_alone
from tests.tiers import cases
from tests.tiny_models import build
from transact.export import checkpoint, proof
from transact.runtime import isolated_process


@pytest.fixture(scope="module")
def bundled():
    return ta.load("bundled")


@pytest.fixture(scope="module")
def kept(bundled, tmp_path_factory):
    """A proved checkpoint of the bundled model less a little, in bfloat16, with layers of different sizes."""
    folder = tmp_path_factory.mktemp("kept") / "out"
    pruned = cut(bundled, ta.PruningTarget((4, 3, 2, 1, 4, 4), (512, 100, 64, 1, 90, 300)))
    return pruned, folder, ta.save(pruned, folder, dtype="bfloat16", prove=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3", pytest.param("smollm3", marks=pytest.mark.long)])
def test_fewer_layers_are_proved(name, tmp_path):
    pruned = cut(build(name, torch.float64), ta.PruningTarget(2, 24, keep_layers=2))
    made = ta.save(pruned, tmp_path / "out", prove=True).proof
    assert made.passed and made.largest_difference < 1e-6


def cut(loaded: ta.LoadedModel, target: ta.PruningTarget) -> ta.LoadedModel:
    return ta.prune(loaded, ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, target))


@pytest.mark.slow
def test_the_proof_stands_in_report_and_card(kept, bundled):
    _, folder, report = kept
    made = report.proof
    assert report.padded and made.passed and made.same_text and made.reason is None
    assert (made.dtype, made.computed_in, made.model_class) == ("bfloat16", "float32", "LlamaForCausalLM")
    assert 0 <= made.largest_difference < 1e-4 < made.tolerance
    assert made.tokens_compared > 4 * 32 + 24  # the text comes on top
    assert (made.torch, made.python) == (torch.__version__, ".".join(map(str, sys.version_info[:3])))
    card = (folder / "README.md").read_text()
    _, _, section = card.partition("## Proof\n")
    assert section.strip().startswith(f"Proved: a fresh process with transformers {made.transformers} alone computed")
    assert "(bfloat16) and compute in float32" in section and f"{made.torch}, {made.python} |" in section
    assert "| loaded as | `LlamaForCausalLM` |" in section
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype", "model_class", "most"),
    [("llama-tied", torch.float64, "MistralForCausalLM", 1e-12),
     pytest.param("llama-biased", torch.float32, "GraniteForCausalLM", 1e-5, marks=pytest.mark.long)],
)  # fmt: skip
def test_other_homes_and_no_tokenizer(name, dtype, model_class, most, tmp_path):
    made = ta.save(cut(build(name, dtype), ta.PruningTarget(3, 17)), tmp_path / "out", prove=True).proof
    assert (made.passed, made.model_class) == (True, model_class)
    assert made.dtype == made.computed_in == str(dtype).removeprefix("torch.")
    assert made.largest_difference < most < made.tolerance * 0.1
    assert "a text of" not in made.protocol


@pytest.mark.long
def test_a_model_of_other_weights_is_found_out(kept, bundled):
    other = cut(bundled, ta.PruningTarget((4, 3, 2, 1, 4, 4), (512, 100, 64, 1, 90, 300)))
    with torch.no_grad():
        other.decoder_layers[5].mlp.down_proj.weight[:, 7] += 0.05
    made = ta.prove(other, kept[1])
    assert not made.passed and made.largest_difference > made.tolerance
    assert made.reason.startswith("the logits differ by up to")
    assert made.outcome == f"Not proved: {made.reason}."


def coarse(folder):
    """One matrix of the 43 as 8-bit numbers hold it, in a file that is otherwise right."""
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.3.self_attn.q_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn).float()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def another_rope(folder):
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] *= 1.5
    (folder / "config.json").write_text(json.dumps(config))


def another_tokenizer(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"], tokenizer["normalizer"] = None, {"type": "Lowercase"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def no_class(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "lama"}))


def truncated(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.long
@pytest.mark.parametrize(
    ("spoil", "reason"),
    cases(
        [(coarse, "the logits differ"), (another_rope, "the logits differ"),
         (another_tokenizer, "cuts a text into other tokens"), (no_class, "the fresh process did not come to an end: "),
         (truncated, "model.safetensors cannot be read")],
        test=lambda spoil, reason: spoil in (coarse, another_tokenizer),
    ),
)  # fmt: skip
def test_a_failed_proof_blocks_the_save_with_its_reason(bundled, tmp_path, monkeypatch, spoil, reason):
    write = checkpoint.write_companions
    monkeypatch.setattr(checkpoint, "write_companions", lambda folder, *rest: (write(folder, *rest), spoil(folder)))
    with pytest.raises(ta.SaveRefused, match="The checkpoint is not kept") as refused:
        ta.save(bundled, tmp_path / "out", prove=True)
    assert reason in str(refused.value) and "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_other_words_from_the_same_logits_are_found_out():
    """What logits cannot show: a cache that goes wrong while writing, a tokenizer that reads tokens otherwise."""
    given = replace(proof._Question.for_model(build("llama")).proof("float32"), tolerance=0.01)
    choices = torch.tensor([[0.0, 5.0, 1.0], [0.0, 5.0, 4.99]])
    here = {"written": torch.tensor([1, 1]), "choices": choices}
    verdict = proof._with_text(given, here, {"written": torch.tensor([2, 1])}, same_reading=False)
    assert not verdict.passed and verdict.reason.startswith("token 1 of the text")
    tie = proof._with_text(given, here, {"written": torch.tensor([1, 2])}, same_reading=False)
    assert tie.passed and tie.tokens_compared == given.tokens_compared - 1
    other = proof._with_text(given, here, {"written": torch.tensor([1, 1])}, same_reading=False)
    assert not other.passed and "another text" in other.reason


def test_nan_is_no_proof():
    given = proof._Question.for_model(build("llama")).proof("float32")
    nan, one = torch.full((2, 3), float("nan")), torch.ones(2, 3)
    for here, there in ((nan, nan), (one, nan), (nan, one)):
        rows = [proof._difference(one, one), proof._difference(here, there), proof._difference(one, one)]
        assert "NaN" in proof._with_differences(given, rows).reason


def test_the_largest_difference_of_all_rows_counts():
    given = proof._Question.for_model(build("llama")).proof("float32")
    rows = [proof._difference(torch.tensor([[8.0, -20.0]]), torch.tensor([[8.0, -20.001]])), (0.5e-3, 3.0)]
    made = proof._with_differences(given, rows)
    assert made.reason is None and made.largest_difference == pytest.approx(1e-3, rel=1e-3)
    assert made.tolerance == pytest.approx(20e-4)
    assert "differ by up to 0.003" in proof._with_differences(given, [*rows, (3e-3, 1.0)]).reason


@pytest.mark.slow
def test_stopping_kills_the_process_and_leaves_nothing(bundled, tmp_path):
    children = []

    def stop(done, total, unit):
        children.extend(processes_alone())
        if children:
            raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.save(bundled, tmp_path / "out", prove=True, progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert children and not any(child.is_running() for child in children)


@pytest.mark.slow
def test_a_proof_that_takes_too_long_has_failed(kept):
    made = ta.prove(kept[0], kept[1], seconds=0.3)
    assert not made.passed and "gave no answer within 0 seconds" in made.reason
    assert not processes_alone()


@pytest.mark.slow
def test_a_model_that_does_not_fit_once_more(kept, monkeypatch):
    monkeypatch.setattr(proof, "free_bytes", lambda device: 10)
    with pytest.raises(ta.NotEnoughMemory, match="--no-proof"):
        ta.prove(kept[0], kept[1])


@pytest.mark.slow
def test_the_fresh_process_cannot_reach_this_package(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import os\n"
        "try:\n    import transact\nexcept ImportError:\n    transact = None\n"
        "def answer(request, tell):\n"
        "    return {'ours': transact is not None, 'given': request, 'cwd': os.getcwd()}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    outside = subprocess.run([sys.executable, "-c", "import transact"], check=False)
    assert outside.returncode == 0, "without the bar it is found"
    answer = isolated_process.run(script, {"a": "ü"}, ta.NO_PROGRESS, seconds=60)
    assert answer["ours"] is False and answer["given"] == {"a": "ü"} and answer["cwd"] != os.getcwd()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("import os; os._exit(0)", "it ended without a message"),
    ],
)
def test_a_process_without_an_answer(tmp_path, lines, said):
    (tmp_path / "script.py").write_text(lines)
    with pytest.raises(isolated_process.IsolatedProcessFailed, match=said):
        isolated_process.run(tmp_path / "script.py", {}, ta.NO_PROGRESS, seconds=60)
    until = time.monotonic() + 60
    while any(thread.name == "alone" for thread in threading.enumerate()):
        assert time.monotonic() < until, "the reader ends with the process"
        time.sleep(0.01)
