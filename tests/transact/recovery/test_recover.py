"""Iterative pruning really trains, goes on after kill -9 and full disks, and gives the same in two processes."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import transact as ta
from tests.conftest import ROOT
from tests.tiers import cases
from tests.tiny_models import build, token_ids
from transact.recovery.training_text import IGNORED, collate

QUICK = {"batch_size": 4, "learning_rate": 3e-3, "log_every": 1, "evaluate_every": 4, "save_every": 4}


def text(loaded, samples=8, seed=7) -> ta.CalibrationSet:
    """Rows in which each token says what the next one is, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(3, 40, (samples, 1), generator=generator)
    return ta.CalibrationSet.from_token_ids((starts + torch.arange(12)) % 40 + 3, name="counting")


def evaluation(loaded) -> ta.EvaluationSet:
    return ta.EvaluationSet.from_token_ids(text(loaded, samples=6, seed=8).input_ids, name="counting on")


def run(loaded, settings, **options):
    return ta.recover(loaded, text(loaded), ta.PruningTarget(2, 20), settings, evaluation=evaluation(loaded), **options)


def same(one: ta.LoadedModel, other: ta.LoadedModel, **tolerance) -> None:
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def test_one_shot_without_tokens_is_plain_pruning():
    dense = build("llama")
    recovered = run(dense, ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=0))
    plan = ta.make_plan(ta.score(dense, ta.observe(dense, text(dense))), dense.spec, ta.PruningTarget(2, 20))
    assert recovered.plan.layers == plan.layers
    same(recovered.pruned, ta.prune(dense, plan))
    assert [point.phase for point in recovered.points] == ["dense", "shot 1 of 1"]
    assert recovered.points[0].perplexity == pytest.approx(ta.perplexity(dense, evaluation(dense)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen2-multi-head-tied"])
def test_shots_with_training_in_between(name):
    dense = build(name, torch.float32)
    before = [parameter.clone() for parameter in dense.model.parameters()]
    settings = ta.RecoverySettings(shots=2, shot_tokens=48 * 16, recovery_tokens=48 * 24, **QUICK)
    steps = []
    recovered = run(dense, settings, progress=lambda *at: steps.append(at))
    assert recovered.pruned.spec.layers[0].intermediate_size == 20
    assert recovered.plan.dense_spec == dense.spec
    assert all(torch.equal(kept, now) for kept, now in zip(before, dense.model.parameters(), strict=True))
    assert steps[-1] == (40, 40, "steps")
    phases = list(dict.fromkeys(point.phase for point in recovered.points))
    assert phases == ["dense", "shot 1 of 2", "shot 2 of 2", "recovery"]
    cut = next(point for point in recovered.points if point.phase == "shot 2 of 2" and point.step == 0)
    last = [point for point in recovered.points if point.perplexity is not None][-1]
    assert last.perplexity < 0.7 * cut.perplexity
    measured = [p.perplexity for p in recovered.points if p.phase == "recovery" and p.perplexity is not None]
    assert ta.perplexity(recovered.pruned, evaluation(dense)) == pytest.approx(min(measured), rel=1e-4)
    assert "recovery: " in recovered.pruned.cuts[-1].trained
    assert recovered.pruned.fingerprint != ta.prune(dense, recovered.plan).fingerprint
    assert not recovered.stopped


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant_with_warmup"])
def test_a_phase_of_one_step_trains(scheduler):
    dense = build("llama", torch.float32)
    settings = ta.RecoverySettings(shots=2, shot_tokens=4, recovery_tokens=1, scheduler=scheduler, **QUICK)
    recovered = run(dense, settings)
    rates = {point.phase: point.learning_rate for point in recovered.points if point.learning_rate is not None}
    assert rates == pytest.approx({"shot 1 of 2": 3e-3, "shot 2 of 2": 6e-3, "recovery": 3e-3})
    first, second = recovered.pruned.cuts
    untrained = ta.prune(dense, recovered.plan)
    changes = [
        (mine - theirs).abs().max()
        for mine, theirs in zip(recovered.pruned.model.parameters(), untrained.model.parameters(), strict=True)
    ]
    assert min(changes) > 1e-3  # three steps of AdamW, each near its rate wherever there is a gradient
    assert first.trained.startswith("shot 1 of 2: 48 tokens") and "recovery: 48 tokens" in second.trained


def test_one_shot_trains_in_the_recovery_alone():
    dense = build("llama", torch.float32)
    recovered = run(dense, ta.RecoverySettings(shots=1, shot_tokens=48 * 8, recovery_tokens=0, **QUICK))
    assert [(point.phase, point.step) for point in recovered.points] == [("dense", 0), ("shot 1 of 1", 0)]
    assert not recovered.pruned.cuts[-1].trained
    same(recovered.pruned, ta.prune(dense, recovered.plan), rtol=0, atol=0)


def test_text_too_short_for_a_step_is_told_and_not_recorded():
    loaded = ta.load("bundled")
    texts = ["One day a fox met a cat."]
    calibration = ta.CalibrationSet.from_texts(texts, loaded.tokenizer, name="texts")
    short = ta.StreamedText(texts, loaded.tokenizer, 64, "a short text")
    settings = ta.RecoverySettings(shots=1, recovery_tokens=60, **QUICK)
    with pytest.raises(ta.InvalidText, match="a short text has no 4 sequences of 64 tokens"):
        ta.recover(loaded, calibration, ta.PruningTarget(3, 400), settings, training=short)


@pytest.mark.slow
def test_scores_are_taken_on_the_smaller_model():
    """What the second shot removes is chosen on what the first one and its training left."""
    dense = build("llama", torch.float32)
    settings = ta.RecoverySettings(shots=2, shot_tokens=48 * 20, recovery_tokens=0, **(QUICK | {"learning_rate": 0.02}))
    first, second = run(dense, settings).pruned.cuts
    assert first.plan.spec == second.plan.dense_spec
    assert first.plan.spec.layers[0].intermediate_size == 30


@pytest.mark.slow
def test_locks_hold_through_all_shots():
    dense = build("llama", torch.float32)
    scores = ta.score(dense, ta.observe(dense, text(dense)))
    weakest, strongest = int(scores.mlp_channels[1].argmin()), int(scores.mlp_channels[1].argmax())
    group = int(scores.head_groups[2].argmax())
    locks = ta.Locks(
        keep_channels=frozenset({(1, weakest)}),
        remove_channels=frozenset({(1, strongest)}),
        remove_head_groups=frozenset({(2, group)}),
    )
    settings = ta.RecoverySettings(shots=3, shot_tokens=48 * 6, recovery_tokens=0, **QUICK)
    plan = run(dense, settings, locks=locks).plan
    assert weakest in plan.layers[1].kept_channels and strongest not in plan.layers[1].kept_channels
    assert group not in plan.layers[2].kept_head_groups
    assert all(len(layer.kept_channels) == 20 and len(layer.kept_head_groups) == 2 for layer in plan.layers)


def test_distillation_from_itself_has_nothing_to_learn():
    dense = build("llama")
    settings = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=96, loss="distillation", **QUICK)
    recovered = ta.recover(dense, text(dense), ta.PruningTarget(4, 40), settings)
    assert [point.loss for point in recovered.points if point.loss is not None][0] == pytest.approx(0, abs=1e-9)


def test_the_loss_by_hand():
    """Distillation is T² · mean KL(dense ‖ pruned) over the real predictions."""
    dense = build("llama")
    ids = token_ids(dense, samples=2)
    rows = [ids[0].tolist(), ids[1, :7].tolist()]
    tokens = ta.CalibrationSet.from_sequences(rows, name="two")
    settings = ta.RecoverySettings(
        shots=1, shot_tokens=0, recovery_tokens=19, loss="distillation", temperature=2.0, **(QUICK | {"batch_size": 2})
    )
    recovered = ta.recover(dense, tokens, ta.PruningTarget(2, 20), settings)
    pruned = ta.prune(dense, recovered.plan)
    terms = []
    for row in rows:
        with torch.no_grad():
            wanted, own = (
                (model.model(torch.tensor([row])).logits[0, :-1] / 2).log_softmax(-1) for model in (dense, pruned)
            )
        terms += (wanted.exp() * (wanted - own)).sum(dim=-1).tolist()
    first = next(point.loss for point in recovered.points if point.loss is not None)
    assert first == pytest.approx(4 * sum(terms) / len(terms), rel=1e-5)


def test_what_does_not_fit_is_said_before_the_work(monkeypatch):
    # by its full name, as the package's attribute of that name may be another thing
    monkeypatch.setattr(importlib.import_module("transact.recovery.recover"), "free_bytes", lambda device: 1000)
    with pytest.raises(ta.NotEnoughMemory, match="smaller micro_batch_size"):
        run(build("llama"), ta.RecoverySettings(**QUICK))


def test_padding_is_never_predicted():
    batch = collate([[5, 6, 7], [8, 9]])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]


def test_a_stop_keeps_the_best_so_far(tmp_path):
    dense = build("llama", torch.float32)
    settings = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=48 * 400, **QUICK)
    points = []
    recovered = run(
        dense, settings, report=points.append, directory=tmp_path / "work",
        stop=lambda: any(point.step >= 10 for point in points),
    )  # fmt: skip
    assert recovered.stopped and recovered.points[-1].step < 20
    assert list(recovered.points) == points
    measured = [point.perplexity for point in points if point.phase == "recovery" and point.perplexity is not None]
    assert ta.perplexity(recovered.pruned, evaluation(dense)) == pytest.approx(min(measured), rel=1e-4)


@pytest.mark.slow
def test_a_folder_is_gone_on_from_only_with_the_same_arguments(tmp_path):
    dense = build("llama", torch.float32)
    settings = ta.RecoverySettings(shots=2, shot_tokens=48 * 8, recovery_tokens=48 * 8, **QUICK)
    first = run(dense, settings, directory=tmp_path / "work")
    again = run(dense, settings, directory=tmp_path / "work", progress=_no_more_steps)
    same(first.pruned, again.pruned, rtol=0, atol=0)
    assert again.points == first.points
    with pytest.raises(ta.InvalidOption, match="another settings"):
        run(dense, ta.RecoverySettings(**(settings.to_dict() | {"seed": 1})), directory=tmp_path / "work")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ta.InvalidOption, match="other files"):
        run(dense, settings, directory=tmp_path / "full")


def _no_more_steps(done, total, unit):
    assert done == 0, "nothing is left to do"


def test_a_loss_that_breaks_names_the_last_good_checkpoint(tmp_path):
    dense = build("llama", torch.float32)
    settings = ta.RecoverySettings(
        shots=1, shot_tokens=0, recovery_tokens=48 * 80, scheduler="constant_with_warmup", warmup=1.0,
        **(QUICK | {"learning_rate": 1e38, "max_grad_norm": 1e38}),
    )  # fmt: skip
    with pytest.raises(ta.TrainingFailed, match=r"loss became .* Lower the learning rate.*(checkpoint|untouched)"):
        ta.recover(dense, text(dense), ta.PruningTarget(2, 20), settings, directory=tmp_path / "work")


SCRIPT = """
import os, resource, signal, sys
import transact as ta
from tests.transact.recovery.test_recover import QUICK, run
from tests.tiny_models import build
import torch
folder, limit, kill_at = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
def report(point):
    if kill_at and point.phase == "recovery" and point.step >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
settings = ta.RecoverySettings(shots=2, shot_tokens=48 * 8, recovery_tokens=48 * 20, **QUICK)
try:
    recovered = run(build("llama", torch.float32), settings, directory=folder, report=report)
except ta.TransactError as error:
    print(type(error).__name__, error)
    sys.exit(1)
torch.save(recovered.pruned.model.state_dict(), folder + ".pt")
print(len(recovered.points))
"""


def _process(folder: Path, *, limit: int = 0, kill_at: int = 0) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(limit), str(kill_at)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    """Where a process that nothing ended left its work, and what it printed."""
    folder = tmp_path_factory.mktemp("recovery") / "whole"
    done = _process(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


# before the first checkpoint, between two, and near the end
@pytest.mark.long
@pytest.mark.parametrize("kill_at", cases([1, 9, 19], test=[9]))
def test_killed_at_any_moment_it_goes_on_and_loses_nothing(whole, tmp_path, kill_at):
    folder, printed = whole
    name = tmp_path / "killed"
    assert _process(name, kill_at=kill_at).returncode == -signal.SIGKILL
    again = _process(name)
    assert again.returncode == 0, again.stderr
    assert again.stdout == printed  # as many figures
    expected, found = (torch.load(f"{place}.pt") for place in (folder, name))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_best_so_far_outlives_an_interruption(tmp_path, monkeypatch):
    """Best at step 2, interrupted in step 3, worse ever after: the result has the weights of step 2."""
    dense = build("llama", torch.float32)
    # dense, after the cut, steps 1 to 3; gone on from the checkpoint of step 2 with steps 3 and 4
    told = iter((9.0, 8.0, 5.0, 3.0, 6.0, 6.5, 7.0))
    seen = []

    def perplexity(now, tokens, **options):
        seen.append([parameter.detach().clone() for parameter in now.model.parameters()])
        return next(told)

    monkeypatch.setattr("transact.recovery.recover.perplexity", perplexity)
    settings = ta.RecoverySettings(
        shots=1, shot_tokens=0, recovery_tokens=4 * 48, **{**QUICK, "evaluate_every": 1, "save_every": 1}
    )

    def report(point):
        if point.perplexity == 6.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dense, settings, directory=tmp_path, report=report)
    recovered = run(dense, settings, directory=tmp_path)
    assert not list(told)
    for mine, best in zip(recovered.pruned.model.parameters(), seen[3], strict=True):
        torch.testing.assert_close(mine, best, rtol=0, atol=0)


@pytest.mark.exhaustive
def test_a_full_disk_is_told_and_what_was_there_is_good(tmp_path):
    """The system refuses files beyond a size, as a full disk does; with room again the same call goes on."""
    folder = tmp_path / "work"
    failed = _process(folder, limit=100_000)
    assert failed.returncode == 1, failed.stderr
    assert failed.stdout.startswith("SaveRefused") and "Free some space" in failed.stdout
    again = _process(folder)
    assert again.returncode == 0, again.stderr


TOGETHER = """
import os, sys
import torch
from accelerate import PartialState
PartialState(cpu=True)
import transact as ta
from tests.tiny_models import build
from tests.transact.recovery.test_recover import QUICK, text, evaluation
from transact.runtime.distributed import is_main, rank_and_count
folder, count = sys.argv[1:3]
assert rank_and_count()[1] == int(count)
if os.environ.get("ACCELERATE_USE_FSDP"):
    from tests.sharding import shard_on_cpus
    shard_on_cpus()
dense = build("llama", torch.float32)
tokens = text(dense, samples=13)
statistics = ta.observe(build("llama"), tokens, gram=True, taylor=True, samples=True, top_k=3, batch_size=2)
if is_main():
    statistics.save(folder + "/statistics.safetensors")
settings = ta.RecoverySettings(shots=2, shot_tokens=48 * 8, recovery_tokens=48 * 8, **QUICK)
recovered = ta.recover(dense, tokens, ta.PruningTarget(2, 20), settings, evaluation=evaluation(dense))
losses = torch.tensor([point.loss for point in recovered.points if point.loss is not None])
if is_main():
    torch.save(losses, folder + "/losses.pt")
    torch.save(recovered.pruned.model.state_dict(), folder + "/weights.pt")
"""


def _launched(count: int, *script_and_arguments: Path | int, **more: str) -> subprocess.CompletedProcess:
    """By torchrun, since `accelerate launch` starts several processes on CPUs by MPI alone."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(
        [*command, *map(str, script_and_arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.mark.exhaustive
def test_two_processes_do_what_one_does(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        done = _launched(count, script, tmp_path / str(count), count)
        assert done.returncode == 0, done.stderr
    alone, together = (
        ta.ActivationStatistics.load(tmp_path / count / "statistics.safetensors") for count in ("1", "2")
    )
    for site in ("attention", "mlp", "head_peaks", "channel_peaks"):
        for one, other in zip(getattr(alone, site), getattr(together, site), strict=True):
            for name, value in vars(one).items():
                torch.testing.assert_close(getattr(other, name), value, rtol=1e-6, atol=1e-9, msg=f"{site} {name}")
    one, two = (torch.load(tmp_path / count / "losses.pt") for count in ("1", "2"))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=0)
    sharded = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
    (tmp_path / "sharded").mkdir()
    done = _launched(2, script, tmp_path / "sharded", 2, **sharded)
    assert done.returncode == 0, done.stderr
    assert "FSDP: parameters of 2 shards" in done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "sharded" / "losses.pt"), one, rtol=1e-3, atol=0)
    whole, same_weights = (torch.load(tmp_path / count / "weights.pt") for count in ("2", "sharded"))
    for name, weight in whole.items():
        torch.testing.assert_close(same_weights[name], weight, rtol=1e-2, atol=1e-4)


LOST = """
import os, signal, sys
import torch
from accelerate import PartialState
PartialState(cpu=True)
import transact as ta
from tests.tiny_models import build
from tests.transact.recovery.test_recover import QUICK, run
from transact.runtime.distributed import is_main
def report(point):
    if point.step == 9 and not is_main():
        os.kill(os.getpid(), signal.SIGKILL)
settings = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=48 * 40, **QUICK)
try:
    run(build("llama", torch.float32), settings, directory=sys.argv[1], report=report)
except ta.TransactError as error:
    print(type(error).__name__, error, file=sys.stderr)
    raise
"""


@pytest.mark.exhaustive
def test_a_lost_process_is_told_with_the_last_good_checkpoint(tmp_path):
    script = tmp_path / "lost.py"
    script.write_text(LOST)
    done = _launched(2, script, tmp_path / "work")
    assert done.returncode != 0
    assert "TrainingFailed Another process of this training was lost" in done.stderr
    assert "checkpoint-8; the same call goes on from there" in done.stderr


@pytest.mark.slow
def test_adapters_alone_are_trained_and_merged():
    pytest.importorskip("peft", reason="LoRA needs peft")
    dense = build("llama", torch.float32)
    settings = ta.RecoverySettings(shots=2, shot_tokens=48 * 16, recovery_tokens=48 * 24, lora_rank=4, **QUICK)
    recovered = run(dense, settings)
    names = [name for name, _ in recovered.pruned.model.named_parameters()]
    assert names == [name for name, _ in dense.model.named_parameters()]
    embeddings = [model.model.get_input_embeddings().weight for model in (dense, recovered.pruned)]
    assert torch.equal(*embeddings)
    perplexities = [point.perplexity for point in recovered.points if point.perplexity is not None]
    assert perplexities[-1] < perplexities[1]


@pytest.mark.slow
def test_half_precision_weights_are_trained_in_full(tmp_path):
    dense = build("llama", torch.bfloat16)
    settings = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=48 * 20, **(QUICK | {"learning_rate": 1e-4}))
    recovered = run(dense, settings)
    assert recovered.pruned.dtype == torch.bfloat16
    # RoPE's frequencies are not rounded on the way
    before, after = (dict(each.model.named_buffers()) for each in (dense, recovered.pruned))
    assert before and all(torch.equal(before[name], value) for name, value in after.items())
    measured = [point.perplexity for point in recovered.points if point.phase == "recovery" and point.perplexity]
    assert measured[-1] < measured[0]
    ta.save(recovered.pruned, tmp_path / "out")
    assert "Trained after the cuts" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_the_models_own_text_is_drawn_again_the_same():
    loaded = ta.load("bundled")
    told = []
    drawn = [
        ta.CalibrationSet.from_model(loaded, num_samples=5, seq_len=24, seed=seed, progress=lambda *at: told.append(at))
        for seed in (0, 0, 1)
    ]
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint
    assert drawn[0].num_samples == 5 and max(drawn[0].lengths) <= 24
    assert told[-1] == (5 * 24, 5 * 24, "tokens")
    # a model reads its own text better than text in which the tokens stand anywhere
    shuffled = [list(row[:1]) + sorted(row[1:]) for row in drawn[0].rows()]
    other = ta.CalibrationSet.from_sequences(shuffled, name="shuffled")
    assert ta.perplexity(loaded, drawn[0]) < 0.2 * ta.perplexity(loaded, other)
    with pytest.raises(ta.InvalidOption, match="above 0"):
        ta.CalibrationSet.from_model(loaded, temperature=0.0)


@pytest.mark.slow
def test_streamed_text_comes_in_windows_and_can_be_trained_on():
    loaded = ta.load("bundled")
    texts = ["One day a fox met a cat.", "", "The cat said hello to the fox. " * 4]
    streamed = ta.StreamedText(texts, loaded.tokenizer, 10, "three texts")
    windows = list(streamed.windows())
    bos = loaded.tokenizer.bos_token_id
    ids = [id for text in texts if text for id in loaded.tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert all(len(window) == 10 and window[0] == bos for window in windows)
    # one more BOS stands inside the window where the second text follows the first
    assert [window.count(bos) for window in windows].count(2) == 1
    flat = [token for window in windows for token in window if token != bos]
    assert flat == ids[: len(flat)] and len(ids) - len(flat) < 10
    calibration = ta.CalibrationSet.from_texts(texts, loaded.tokenizer, name="texts")
    settings = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=60, **(QUICK | {"batch_size": 2}))
    recovered = ta.recover(loaded, calibration, ta.PruningTarget(3, 400), settings, training=streamed)
    assert [point.step for point in recovered.points if point.loss is not None] == [1, 2, 3]
