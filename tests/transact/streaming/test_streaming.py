"""Streamed models come to what models in memory do, hold one layer at a time, and go on after kill -9."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import transact as ta
from tests.conftest import ROOT
from tests.tiers import FEW, LAYOUTS, cases
from tests.tiny_models import TINY, build, token_ids
from transact.models import preflight
from transact.observing.statistics import Moments
from transact.streaming import layer_log, shard_writer
from transact.streaming.tensor_reader import TensorFiles

EVEN = ta.PruningTarget(keep_head_groups=2, keep_channels=24)
UNEVEN = ta.PruningTarget(keep_head_groups=(1, 3, 2), keep_channels=(40, 5, 13))


def _text(loaded: ta.LoadedModel) -> ta.CalibrationSet:
    """Samples of different lengths, so that batches are padded."""
    rows = [ids[: 4 + index].tolist() for index, ids in enumerate(token_ids(loaded, samples=12, seq=16))]
    return ta.CalibrationSet.from_sequences(rows, name="ids")


def _saved(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> str:
    ta.save(build(name, dtype), folder)
    return str(folder)


def _assert_close(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    assert found.shape == expected.shape, what
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale, msg=lambda text: f"{what}: {text}")


def _assert_same_statistics(found: ta.ActivationStatistics, expected: ta.ActivationStatistics) -> None:
    assert (found.fingerprint, found.dtype) == (expected.fingerprint, expected.dtype)
    assert vars(found.calibration) == vars(expected.calibration)
    assert found.sample_tokens == expected.sample_tokens
    for site in ("attention", "mlp", "head_peaks", "channel_peaks"):
        for mine, theirs in zip(getattr(found, site), getattr(expected, site), strict=True):
            for name, value in vars(theirs).items():
                if value is not None:
                    _assert_close(getattr(mine, name), value, f"{site} {name}")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _assert_same_checkpoint(found: Path, expected: Path) -> None:
    names = [sorted(file.name for file in folder.iterdir()) for folder in (found, expected)]
    assert names[0] == names[1]
    for name in names[0]:
        if not name.endswith(".safetensors"):
            assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    mine, theirs = _weights(found), _weights(expected)
    assert mine.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert mine[name].dtype == weight.dtype
        _assert_close(mine[name], weight, name)


@pytest.mark.parametrize("name", cases(TINY, test=LAYOUTS, check=FEW))
def test_every_family_comes_to_what_it_does_in_memory(name, tmp_path):
    source = _saved(name, tmp_path / "base")
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    calibration = _text(loaded)
    expected = ta.observe(loaded, calibration, gram=True, samples=True, top_k=2)
    _assert_same_statistics(ta.stream_observe(streamed, calibration, gram=True, samples=True, top_k=2), expected)
    walked = ta.stream_observe(streamed, calibration, gram="by_layer")
    scores = ta.score(streamed, walked, metric="wanda")
    for mine, theirs in zip(scores.heads, ta.score(loaded, expected, metric="wanda").heads, strict=True):
        _assert_close(mine, theirs, "scores")
    even, uneven = (ta.make_plan(scores, loaded.spec, target) for target in (EVEN, UNEVEN))
    for number, (plan, compensation, layers) in enumerate(
        ((uneven, "none", "padded"), (even, "bias", "padded"), (uneven, "least_squares", "compact"))
    ):
        folders = [tmp_path / f"{way} {number}" for way in ("streamed", "in memory")]
        try:
            pruned = ta.prune(loaded, plan, compensation=compensation, statistics=expected)
        except ta.InvalidOption as error:  # no stock class of this family holds the biases
            assert compensation == "bias"
            with pytest.raises(ta.InvalidOption, match=str(error)[:40]):
                ta.stream_prune(streamed, plan, folders[0], compensation="bias", statistics=walked)
            continue
        report = ta.stream_prune(
            streamed, plan, folders[0], compensation=compensation, statistics=walked, layers=layers
        )
        assert vars(report) == vars(ta.save(pruned, folders[1], layers=layers)) | {"directory": str(folders[0])}
        _assert_same_checkpoint(folders[0], folders[1])


def test_constants_of_an_activation_function_are_those_of_the_files(tmp_path):
    """Buffers, not parameters: stock classes fill them from the files, whatever they are made with."""
    source = _saved("apertus", tmp_path / "base")
    before = ta.perplexity(ta.load(source), _text(ta.load(source)))
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {name: each * 2 for name, each in tensors.items() if name.endswith("beta")}, file)
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    text = _text(loaded)
    assert ta.perplexity(streamed, text) == pytest.approx(ta.perplexity(loaded, text), rel=1e-6)
    assert ta.perplexity(loaded, text) != pytest.approx(before, rel=1e-3)
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, UNEVEN)
    ta.stream_prune(streamed, plan, tmp_path / "streamed")
    ta.save(ta.prune(loaded, plan), tmp_path / "in memory")
    _assert_same_checkpoint(tmp_path / "streamed", tmp_path / "in memory")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["bundled", "stories260K"])
def test_trained_models(source, tmp_path, request):
    source = source if source == "bundled" else str(request.getfixturevalue("data") / source)
    loaded = ta.load(source, dtype="float32")
    texts = [" ".join(["Once upon a time there was a little dog."] * count) for count in range(1, 9)]
    calibration = ta.CalibrationSet.from_texts(texts, loaded.tokenizer, seq_len=64)
    statistics = ta.stream_observe(source, calibration, gram="by_layer")
    plan = ta.make_plan(
        ta.score(loaded, statistics), loaded.spec, ta.PruningTarget.from_sparsity(loaded.spec, attention=0.25, mlp=0.5)
    )
    ta.stream_prune(source, plan, tmp_path / "out", compensation="least_squares", statistics=statistics)
    pruned = ta.prune(loaded, plan, compensation="least_squares", statistics=statistics)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32")
    ids = calibration.input_ids[:2]
    with torch.no_grad():
        _assert_close(stock(ids).logits, pruned.model(ids).logits, "logits")
    assert ta.generate(ta.load(str(tmp_path / "out"), dtype="float32"), "Once") == ta.generate(pruned, "Once")


def test_several_files_in_and_out(tmp_path, monkeypatch):
    """Two of the layers' tensors to a file, so that a layer's are in several."""
    monkeypatch.setattr(shard_writer, "MAX_SHARD_BYTES", 12_000)
    dense = build("llama", torch.float32)
    source = tmp_path / "base"
    ta.save(dense, source)
    (source / "model.safetensors").unlink()
    dense.model.save_pretrained(source, max_shard_size="9KB")
    assert len(list(source.glob("*.safetensors"))) > 3
    loaded = ta.load(str(source))
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, EVEN)
    ta.stream_prune(str(source), plan, tmp_path / "out")
    files = sorted(file.name for file in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 3 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in _weights(tmp_path / "out").values())
    stock, pruned = AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ta.prune(loaded, plan)
    with torch.no_grad():
        assert torch.equal(stock(token_ids(loaded)).logits, pruned.model(token_ids(loaded)).logits)


def test_half_precision_stays_what_it_was(tmp_path):
    source = _saved("qwen2", tmp_path / "base", torch.bfloat16)
    loaded = ta.load(source, dtype="float32")
    calibration = _text(loaded)
    statistics = ta.observe(loaded, calibration, gram=True)
    plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, EVEN)
    for compensation in ("none", "least_squares"):
        found, expected = tmp_path / compensation, tmp_path / f"{compensation} in memory"
        ta.stream_prune(source, plan, found, compensation=compensation, statistics=statistics)
        pruned = ta.prune(loaded, plan, compensation=compensation, statistics=statistics)
        ta.save(pruned, expected, dtype=pruned.file_dtype)
        mine, theirs = _weights(found), _weights(expected)
        assert all(torch.equal(mine[name], weight) for name, weight in theirs.items())
    ta.stream_prune(source, plan, tmp_path / "wide", dtype="float32")
    assert {each.dtype for each in _weights(tmp_path / "wide").values()} == {torch.float32}


@pytest.mark.parametrize("name, drop", [("gpt2", "transformer."), ("opt", "model."), ("gpt-neox", "")])
def test_files_as_the_hub_has_them(name, drop, tmp_path):
    """A bare decoder's names, and masks that older files hold."""
    source = _saved(name, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = {key.removeprefix(drop): tensor for key, tensor in load_file(file).items()}
    masks = {"gpt2": "h.0.attn.bias", "gpt-neox": "gpt_neox.layers.0.attention.bias"}
    tensors |= {masks[name]: torch.ones(1, 1, 4, 4, dtype=torch.bool)} if name in masks else {}
    save_file(tensors, file, metadata={"format": "pt"})
    loaded = ta.load(source)
    calibration = _text(loaded)
    statistics = ta.stream_observe(source, calibration)
    _assert_same_statistics(statistics, ta.observe(loaded, calibration))
    plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, EVEN)
    ta.stream_prune(source, plan, tmp_path / "out")
    ta.save(ta.prune(loaded, plan), tmp_path / "in memory")
    _assert_same_checkpoint(tmp_path / "out", tmp_path / "in memory")


def test_a_compact_checkpoint_is_streamed_and_cut_again(tmp_path):
    dense = build("llama", torch.float32)
    once = ta.prune(dense, ta.make_plan(ta.ImportanceScores.random(dense.spec), dense.spec, UNEVEN))
    ta.save(once, tmp_path / "base", layers="compact")
    loaded = ta.load(str(tmp_path / "base"))
    calibration = _text(loaded)
    statistics = ta.stream_observe(str(tmp_path / "base"), calibration)
    _assert_same_statistics(statistics, ta.observe(loaded, calibration))
    plan = ta.make_plan(ta.score(loaded, statistics), loaded.spec, ta.PruningTarget(1, 4))
    ta.stream_prune(str(tmp_path / "base"), plan, tmp_path / "out")
    ta.save(ta.prune(loaded, plan), tmp_path / "in memory")
    _assert_same_checkpoint(tmp_path / "out", tmp_path / "in memory")


def test_one_layer_is_held_at_a_time(tmp_path):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))

    def held() -> list[int]:
        layers = enumerate(streamed.decoder_layers)
        return [index for index, layer in layers if any(not each.is_meta for each in layer.parameters())]

    seen = []
    calibration = _text(streamed)
    statistics = ta.stream_observe(
        streamed, calibration, gram="by_layer", batch_size=4, progress=lambda *told: seen.append((*told, held()))
    )
    held_in_turn = [layers for layers, _ in itertools.groupby(layers for *_, layers in seen)]
    assert held_in_turn == [[], [0], [], [1], [], [2], []]
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1][:3] == (calibration.num_tokens, calibration.num_tokens, "tokens")
    assert held() == [] and all(each.is_meta for each in streamed.model.parameters())
    plan = ta.make_plan(ta.score(streamed, statistics), streamed.spec, EVEN)
    told = []
    ta.stream_prune(
        streamed, plan, tmp_path / "out", compensation="least_squares", statistics=statistics,
        progress=lambda done, total, unit: told.append((done, total, unit, held())),
    )  # fmt: skip
    figures = [figures for figures, _ in itertools.groupby(each[:3] for each in told)]
    assert figures == [(0, 3, "layers"), (1, 3, "layers"), (2, 3, "layers"), (3, 3, "layers")]
    assert all(layers in ([], [done]) for done, _, _, layers in told)


def test_only_the_rows_of_used_tokens_are_read(tmp_path):
    _saved("llama", tmp_path / "base")
    files = TensorFiles((tmp_path / "base" / "model.safetensors",), build("llama").layout)
    whole = files.read("model.embed_tokens.weight", torch.float32)
    read = torch.tensor([3, 7, 47])
    table = files.rows("model.embed_tokens.weight", read, torch.float32)
    assert table.shape == whole.shape and torch.equal(table[read], whole[read])
    pieces = list(files.pieces("model.embed_tokens.weight", torch.bfloat16))
    assert torch.equal(torch.cat(pieces), whole.flatten().bfloat16())


class _Stopped(Exception):
    pass


def news(progress):
    """`progress` for what is new alone: between two figures the last one is told again."""
    latest = None

    def hear(*figures) -> None:
        nonlocal latest
        if figures != latest:
            latest = figures
            progress(*figures)

    return hear


def _stop_at(count: int):
    calls = itertools.count()

    def progress(done: int, total: int, unit: str) -> None:
        if next(calls) == count:
            raise _Stopped

    return news(progress)


@pytest.mark.parametrize("compensation", ["none", "least_squares"])
@pytest.mark.parametrize("existing", [False, True], ids=["new folder", "folder that is there"])
def test_stopped_before_any_layer_it_goes_on_there(compensation, existing, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "MAX_SHARD_BYTES", 12_000)
    source = _saved("llama-tied", tmp_path / "base")
    streamed = ta.load_streamed(source)
    statistics = ta.stream_observe(streamed, _text(streamed), gram="by_layer")
    plan = ta.make_plan(ta.score(streamed, statistics), streamed.spec, UNEVEN)
    work = {"compensation": compensation, "statistics": statistics}
    ta.stream_prune(streamed, plan, tmp_path / "whole", **work)
    for layer in range(4):
        out = tmp_path / f"out {layer}"
        if existing:
            out.mkdir()
        with pytest.raises(_Stopped):
            ta.stream_prune(streamed, plan, out, **work, progress=_stop_at(layer))
        assert not out.exists() or [entry.name for entry in out.iterdir()] == [".stream.partial"]
        told = []
        ta.stream_prune(streamed, plan, out, **work, progress=news(lambda done, *_, told=told: told.append(done)))
        assert told == list(range(layer, 4))
        for file in (tmp_path / "whole").iterdir():
            assert (out / file.name).read_bytes() == file.read_bytes(), file.name
        assert len(list(out.iterdir())) == len(list((tmp_path / "whole").iterdir()))
    assert not list(tmp_path.glob(".*partial"))


def test_other_work_does_not_go_on_from_what_is_there(tmp_path):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))
    plans = [ta.make_plan(ta.ImportanceScores.random(streamed.spec, seed), streamed.spec, EVEN) for seed in (0, 1)]
    with pytest.raises(_Stopped):
        ta.stream_prune(streamed, plans[0], tmp_path / "out", progress=_stop_at(2))
    told = []
    ta.stream_prune(streamed, plans[1], tmp_path / "out", progress=news(lambda done, *_: told.append(done)))
    assert told == [0, 1, 2, 3]
    ta.stream_prune(streamed, plans[1], tmp_path / "again")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "again" / "model.safetensors"
    ).read_bytes()


def test_a_lost_file_is_written_again(tmp_path):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))
    plan = ta.make_plan(ta.ImportanceScores.random(streamed.spec), streamed.spec, EVEN)
    with pytest.raises(_Stopped):
        ta.stream_prune(streamed, plan, tmp_path / "out", progress=_stop_at(2))
    (tmp_path / ".out.stream.partial" / "model.safetensors").unlink()
    told = []
    ta.stream_prune(streamed, plan, tmp_path / "out", progress=news(lambda done, *_: told.append(done)))
    assert told == [0, 1, 2, 3] and ta.load(str(tmp_path / "out")).spec == plan.spec


@pytest.mark.parametrize("calls", [0, 3, 4, 8])
def test_a_stopped_observation_goes_on_from_its_savepoint(calls, tmp_path):
    streamed = ta.load_streamed(_saved("gemma2", tmp_path / "base"))
    options = {"samples": True, "gram": True, "top_k": 2, "batch_size": 4}
    calibration = _text(streamed)
    whole = ta.stream_observe(streamed, calibration, **options)
    with pytest.raises(_Stopped):
        ta.stream_observe(streamed, calibration, **options, savepoint=tmp_path / "point", progress=_stop_at(calls))
    told = []
    again = ta.stream_observe(
        streamed, calibration, **options, savepoint=tmp_path / "point",
        progress=news(lambda done, *_: told.append(done)),
    )  # fmt: skip
    assert len(told) == 3 * (3 - calls // 3) + 1, "finished layers are not run again"
    assert not (tmp_path / "point").exists()
    for site in ("attention", "mlp", "head_peaks", "channel_peaks"):
        for mine, theirs in zip(getattr(again, site), getattr(whole, site), strict=True):
            for name, value in vars(theirs).items():
                assert value is None or torch.equal(getattr(mine, name), value)


def test_a_savepoint_takes_nobodys_files(tmp_path):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(ta.SaveRefused, match="holds other files"):
        ta.stream_observe(streamed, _text(streamed), savepoint=tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


KILLED = """
import os, signal, sys
import transact as ta
from tests.transact.streaming.test_streaming import _text, news, UNEVEN
folder, kill_in, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
def killing(work):
    def progress(done, total, unit):
        print(work, done, flush=True)
        if work == kill_in and done >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return news(progress)
streamed = ta.load_streamed(folder + "/base")
statistics = ta.stream_observe(streamed, _text(streamed), gram="by_layer", batch_size=4,
                               savepoint=folder + "/point", progress=killing("observe"))
plan = ta.make_plan(ta.score(streamed, statistics), streamed.spec, UNEVEN)
ta.stream_prune(streamed, plan, folder + "/out", compensation="least_squares", statistics=statistics,
                progress=killing("prune"))
"""


@pytest.mark.long
def test_killed_it_goes_on_at_the_layer_and_comes_to_the_same_bits(tmp_path):
    source = _saved("smollm3", tmp_path / "base")
    total = _text(ta.load_streamed(source)).num_tokens

    def run(work: str, at: int) -> tuple[int, list[str]]:
        command = [sys.executable, "-c", KILLED, str(tmp_path), work, str(at)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode, done.stdout.split("\n")

    assert run("observe", total // 2)[0] == -signal.SIGKILL
    code, told = run("prune", 2)
    assert code == -signal.SIGKILL and told[0] == f"observe {total // 3}"  # its first layer was finished
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.stream.partial").exists()
    code, told = run("", 0)
    assert code == 0 and [line for line in told if line.startswith("prune")] == ["prune 2", "prune 3"]
    shutil.move(tmp_path / "out", tmp_path / "killed")
    streamed = ta.load_streamed(source)
    statistics = ta.stream_observe(streamed, _text(streamed), gram="by_layer", batch_size=4)
    plan = ta.make_plan(ta.score(streamed, statistics), streamed.spec, UNEVEN)
    ta.stream_prune(streamed, plan, tmp_path / "out", compensation="least_squares", statistics=statistics)
    for file in (tmp_path / "out").iterdir():
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes(), file.name


MEMORY = """
import resource, sys
import torch
import transact as ta
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
calibration = ta.CalibrationSet.from_token_ids(torch.arange(3, 67)[None], name="ids")
ta.stream_observe("bundled", calibration)  # what any run takes
before = peak()
streamed = ta.load_streamed(sys.argv[1])
statistics = ta.stream_observe(streamed, calibration)
target = ta.PruningTarget.from_sparsity(streamed.spec, attention=0.5, mlp=0.5)
plan = ta.make_plan(ta.score(streamed, statistics, metric="wanda"), streamed.spec, target)
ta.stream_prune(streamed, plan, sys.argv[2], compensation="bias", statistics=statistics)
print(peak() - before)
"""


@pytest.mark.long
def test_memory_follows_the_layer_and_not_the_model(tmp_path):
    config = LlamaConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=8,
        vocab_size=20_000,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "base"), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    layer = size / 12 * 0.7  # the rest are embeddings and output head
    assert size > 280e6 and int(done.stdout) < 4 * layer, f"{int(done.stdout):,} of {size:,} bytes"


TOGETHER = """
import sys
from accelerate import PartialState
PartialState(cpu=True)
import pytest
import transact as ta
from tests.transact.streaming.test_streaming import _text
from transact.runtime.distributed import is_main, rank_and_count
assert rank_and_count()[1] == 2
streamed = ta.load_streamed(sys.argv[1])
statistics = ta.stream_observe(streamed, _text(streamed), gram=True, samples=True, top_k=2, batch_size=2)
if is_main():
    statistics.save(sys.argv[2])
with pytest.raises(ta.InvalidOption, match="one process"):
    ta.stream_observe(streamed, _text(streamed), savepoint=sys.argv[2] + ".point")
"""


@pytest.mark.long
def test_two_processes_share_the_samples(tmp_path):
    source = _saved("mistral", tmp_path / "base")
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(script), source, str(tmp_path / "statistics")],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = ta.load(source)
    expected = ta.observe(loaded, _text(loaded), gram=True, samples=True, top_k=2)
    _assert_same_statistics(ta.ActivationStatistics.load(tmp_path / "statistics"), expected)


def test_what_needs_the_whole_model_is_refused(tmp_path):
    source = _saved("llama", tmp_path / "base")
    loaded, streamed = ta.load(source), ta.load_streamed(source)
    calibration = _text(loaded)
    statistics = ta.stream_observe(streamed, calibration)
    plan = ta.make_plan(ta.score(streamed, statistics), streamed.spec, EVEN)
    for run in (
        lambda: ta.observe(streamed, calibration),
        lambda: streamed.model(calibration.input_ids),
    ):
        with pytest.raises(ta.InvalidOption, match="is streamed"):
            run()
    out = tmp_path / "out"
    for refused, words in (
        (lambda: ta.stream_prune(source, plan, out, compensation="best", statistics=statistics), "whole model"),
        (lambda: ta.stream_prune(source, plan, out, compensation="least_squares", statistics=statistics), "Gram"),
        (lambda: ta.stream_prune(source, plan, out, compensation="bias"), "means"),
        (lambda: ta.stream_prune(source, plan, out, layers="thin"), "thin"),
        (lambda: ta.stream_prune(loaded, plan, out), "in memory already"),
        (lambda: ta.stream_observe(source, calibration, gram="some"), "gram is 'some'"),
        (lambda: ta.score(streamed, statistics, metric="taylor"), "gradients"),
    ):
        with pytest.raises(ta.InvalidOption, match=words):
            refused()
    other = build("qwen2")
    for foreign in (ta.make_plan(ta.ImportanceScores.random(other.spec), other.spec, EVEN),):
        with pytest.raises(ta.InvalidPlan, match="other shapes"):
            ta.stream_prune(source, foreign, out)
    assert not out.exists() and not list(tmp_path.glob(".*partial"))


def test_destinations_that_are_refused(tmp_path, monkeypatch):
    streamed = ta.load_streamed(_saved("llama", tmp_path / "base"))
    plan = ta.make_plan(ta.ImportanceScores.random(streamed.spec), streamed.spec, EVEN)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ta.SaveRefused, match="not an empty folder"):
        ta.stream_prune(streamed, plan, tmp_path / "full")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("transact.streaming.prune.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ta.SaveRefused, match="are free at"):
        ta.stream_prune(streamed, plan, tmp_path / "out")
    monkeypatch.undo()

    def meanwhile(done: int, total: int, unit: str) -> None:
        with pytest.raises(ta.SaveRefused, match="Another process"):
            layer_log.LayerLog(tmp_path / ".out.stream.partial", {})

    ta.stream_prune(streamed, plan, tmp_path / "out", progress=meanwhile)
    assert ta.load(str(tmp_path / "out")).spec == plan.spec


def test_broken_checkpoints_and_too_little_memory(tmp_path, monkeypatch):
    source = _saved("llama", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    for changed, words in (
        ({name: each for name, each in tensors.items() if name != "model.norm.weight"}, "lacks tensor model.norm"),
        (tensors | {"model.extra.weight": torch.ones(2)}, "surplus tensor model.extra"),
        (tensors | {"model.norm.weight": torch.ones(32).to(torch.float8_e4m3fn)}, "F8_E4M3"),
    ):
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(ta.CheckpointBroken, match=words):
            ta.stream_observe(source, _text(build("llama")))
    broken = tensors | {"model.layers.1.mlp.up_proj.weight": tensors["model.layers.1.mlp.up_proj.weight"] * torch.nan}
    save_file(broken, file, metadata={"format": "pt"})
    with pytest.raises(ta.NonFiniteActivations, match="Layer 1 .* MLP"):
        ta.stream_observe(source, _text(build("llama")))
    file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(ta.CheckpointBroken, match="pickled"):
        ta.load_streamed(source)
    file.with_name("pytorch_model.bin").rename(file)
    card = ta.preflight(source)
    monkeypatch.setattr(preflight, "free_bytes", lambda device: card.streamed_bytes)
    assert card.streamed_bytes < card.required_bytes + 100_000_000 and ta.load_streamed(source).spec == card.spec
    monkeypatch.setattr(preflight, "free_bytes", lambda device: card.streamed_bytes - 1)
    with pytest.raises(ta.NotEnoughMemory, match="even layer by layer"):
        ta.load_streamed(source)
    monkeypatch.undo()
    streamed = ta.load_streamed(source)
    monkeypatch.setattr("transact.streaming.streamed_model.free_bytes", lambda device: 10)
    with pytest.raises(ta.NotEnoughMemory, match="hidden states"):
        ta.stream_observe(streamed, _text(streamed))


def test_a_layer_needs_less_than_the_model():
    spec = ta.ModelSpec.from_config(LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32))
    card = ta.Preflight("7B", None, spec, "bfloat16", 2 * spec.num_parameters, 0, 0)
    # two layers of 202,375,168 and embeddings of 131,072,000 parameters in two bytes, 0.4 GB to work in, and for 512
    # positions their hidden states twice and five blocks of logits of 34 MiB
    measuring = 2 * 512 * 4096 * 2 + 5 * 34 * 2**20
    assert card.streamed_bytes == 2 * (2 * 202_375_168 + 131_072_000) + 400_000_000 + measuring


def test_statistics_in_files_go_with_both_ways(tmp_path):
    source = _saved("qwen3", tmp_path / "base")
    streamed = ta.load_streamed(source)
    ta.stream_observe(streamed, _text(streamed), gram=True).save(tmp_path / "statistics")
    read = ta.ActivationStatistics.load(tmp_path / "statistics")
    assert isinstance(read.mlp[0], Moments) and read.mlp[0].gram is not None
    plan = ta.make_plan(ta.score(streamed, read, metric="fluctuation"), streamed.spec, EVEN)
    ta.stream_prune(streamed, plan, tmp_path / "out", compensation="least_squares", statistics=read)
    pruned = ta.prune(ta.load(source), plan, compensation="least_squares", statistics=read)
    ta.save(pruned, tmp_path / "in memory")
    _assert_same_checkpoint(tmp_path / "out", tmp_path / "in memory")
