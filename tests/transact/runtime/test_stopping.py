"""Everything that takes a `Progress` is stopped by it: soon, wherever it is, and with nothing left behind."""

import contextlib
import inspect
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

import transact as ta
from tests import tiny_models
from tests.slow_models import slowed
from tests.tiers import cases

LAYERS = 12
LAYER_SECONDS = 0.25
"""Twelve of them make one batch of three seconds, which is as long as a stop may take."""
HEARD_SECONDS = 3.0


@dataclass(frozen=True)
class Case:
    """What the calls work with; all of it small but the time that a layer takes."""

    loaded: ta.LoadedModel
    text: ta.CalibrationSet
    measured_on: ta.EvaluationSet
    statistics: ta.ActivationStatistics
    plan: ta.PruningPlan
    scores: ta.ImportanceScores
    checkpoint: Path
    """A saved model of that shape."""
    place: Path
    """Where files may be written."""

    @property
    def target(self) -> ta.PruningTarget:
        return ta.PruningTarget(2, 20)


SETTINGS = ta.RecoverySettings(shots=1, shot_tokens=0, recovery_tokens=96, batch_size=4, loss="distillation")


def _streamed(case: Case) -> ta.StreamedModel:
    return ta.load_streamed(str(case.checkpoint))


def _stream_observed(case: Case, progress: ta.Progress):
    return ta.stream_observe(_slow_as(case, _streamed(case)), case.text, progress=progress)


def _slow_as(case: Case, loaded: ta.LoadedModel) -> ta.LoadedModel:
    """`loaded` with layers that sleep where those of the case do."""
    for mine, layer in zip(loaded.decoder_layers, case.loaded.decoder_layers, strict=True):
        for hook in layer._forward_pre_hooks.values():
            mine.register_forward_pre_hook(hook)
    return loaded


def _stream_pruned(case: Case, progress: ta.Progress):
    loaded = _slow_as(case, _streamed(case))
    plan = ta.make_plan(ta.ImportanceScores.random(loaded.spec), loaded.spec, case.target)
    return ta.stream_prune(loaded, plan, case.place / "streamed", progress=progress)


CALLS: dict[str, Callable[[Case, ta.Progress], object]] = {
    "observe": lambda case, progress: ta.observe(case.loaded, case.text, gram=True, progress=progress),
    "observe, taylor": lambda case, progress: ta.observe(case.loaded, case.text, taylor=True, progress=progress),
    "score": lambda case, progress: ta.score(case.loaded, case.statistics, metric="wanda", progress=progress),
    "stability": lambda case, progress: ta.stability(case.loaded, case.statistics, case.target, progress=progress),
    "search_plan": lambda case, progress: ta.search_plan(
        case.loaded, ta.observe(case.loaded, case.text.first(1)), case.target, progress=progress
    ),
    "search_widths": lambda case, progress: ta.search_widths(
        case.loaded, ta.observe(case.loaded, case.text.first(2), gram=True), case.target, progress=progress
    ),
    "compress": lambda case, progress: ta.compress(
        case.loaded, case.text.first(2), size=0.95, minutes=0.02, progress=progress
    ),
    "prune, least_squares": lambda case, progress: ta.prune(
        case.loaded, case.plan, compensation="least_squares", statistics=case.statistics, progress=progress
    ),
    "prune, best": lambda case, progress: ta.prune(
        case.loaded, case.plan, compensation="best", statistics=case.statistics, progress=progress
    ),
    "perplexity": lambda case, progress: ta.perplexity(case.loaded, case.measured_on, progress=progress),
    "evaluate": lambda case, progress: ta.evaluate(
        ta.prune(case.loaded, case.plan), case.measured_on, reference=case.loaded, progress=progress
    ),
    "measure_speed": lambda case, progress: ta.measure_speed((case.loaded,), progress=progress),
    "generate": lambda case, progress: ta.generate(case.loaded, "One day", progress=progress),
    "attention_patterns": lambda case, progress: ta.attention_patterns(case.loaded, "One day", progress=progress),
    "CalibrationSet.from_model": lambda case, progress: ta.CalibrationSet.from_model(
        case.loaded, num_samples=2, seq_len=16, progress=progress
    ),
    "probe_frontier": lambda case, progress: ta.probe_frontier(
        case.loaded, ta.score(case.loaded, ta.observe(case.loaded, case.text.first(1))), case.text, progress=progress
    ),
    "run_probe": lambda case, progress: ta.run_probe(case.loaded, ta.load_probes()[0], limit=4, progress=progress),
    "sweep": lambda case, progress: list(
        ta.sweep(
            case.loaded, case.scores, [case.target], case.measured_on,
            compensation="best", statistics=case.statistics, progress=progress,
        )
    ),
    "search_split": lambda case, progress: ta.search_split(
        case.loaded, case.scores, case.text, parameters=case.plan.spec.num_parameters, progress=progress
    ),
    "recover": lambda case, progress: ta.recover(
        case.loaded, case.text, case.target, SETTINGS, evaluation=case.measured_on, progress=progress
    ),
    "recover, in a folder": lambda case, progress: ta.recover(
        case.loaded, case.text, case.target, SETTINGS, directory=case.place / "recovery", progress=progress
    ),
    "prove": lambda case, progress: ta.prove(case.loaded, case.checkpoint, progress=progress),
    "save": lambda case, progress: ta.save(case.loaded, case.place / "saved", prove=True, progress=progress),
    "save_gguf": lambda case, progress: ta.save_gguf(case.loaded, case.place / "model.gguf", progress=progress),
    "load": lambda case, progress: ta.load(str(case.checkpoint), progress=progress),
    "load_streamed": lambda case, progress: ta.load_streamed(str(case.checkpoint), progress=progress),
    "stream_observe": _stream_observed,
    "stream_prune": _stream_pruned,
    "perplexity, streamed": lambda case, progress: ta.perplexity(
        _slow_as(case, _streamed(case)), case.measured_on, progress=progress
    ),
}  # fmt: skip
AT_ONCE = {"score", "stability", "prune, least_squares", "save_gguf", "load", "load_streamed"}
"""They run no layer, so that a tiny model keeps them for an instant; what is large in them has tests of its own."""
PROVED = ("prove", "save")
"""They start a process for each of the eight moments; tests/transact/export/test_proof.py stops one."""
ELSEWHERE = {
    "fetch": "waits for processes that it kills (tests/faults/test_hub.py, test_isolated_tokenizer.py)",
    "preflight": "reads one small file, or waits for a process that it kills (tests/faults/test_hub.py)",
    "push": "waits for a process that it kills (test_hub_push.py)",
    "check_push": "waits for a process that it kills (test_hub_push.py)",
    "evaluate_tasks": "test_lm_eval_tasks.py, where its package is installed",
}


def test_every_public_function_with_a_progress_is_here():
    public = {name: getattr(ta, name) for name in ta.__all__}
    functions = {name for name, each in public.items() if inspect.isfunction(each)}
    with_progress = {name for name in functions if "progress" in inspect.signature(public[name]).parameters}
    assert with_progress - ELSEWHERE.keys() == {name.partition(",")[0] for name in CALLS} - {
        "CalibrationSet.from_model"
    }


@cache
def _model(layers: int) -> ta.LoadedModel:
    """A tiny Llama of so many layers that reads the bundled tokenizer's text."""
    bundled = ta.load("bundled")
    changes = {"num_hidden_layers": layers, "vocab_size": bundled.spec.vocab_size, "max_position_embeddings": 256}
    tiny_models.TINY["for stopping"] = ("llama", changes)
    try:
        loaded = tiny_models.build("for stopping", torch.float32)
    finally:
        del tiny_models.TINY["for stopping"]
    return ta.LoadedModel.from_model(loaded.model, bundled.tokenizer, source="for stopping")


def _case(layers: int, folder: Path) -> Case:
    loaded = _model(layers)
    texts = [f"Once upon a time there was a {animal} who liked to sing." for animal in ("fox", "crow", "bear", "cat")]
    text = ta.CalibrationSet.from_texts(texts, loaded.tokenizer, seq_len=12)
    statistics = ta.observe(loaded, text, gram=True, samples=True)
    scores = ta.score(loaded, statistics)
    checkpoint = folder / "checkpoint"
    ta.save(loaded, checkpoint)
    (folder / "place").mkdir()
    return Case(
        loaded=loaded,
        text=text,
        measured_on=ta.EvaluationSet.from_texts(texts, loaded.tokenizer, seq_len=12),
        statistics=statistics,
        plan=ta.make_plan(scores, loaded.spec, ta.PruningTarget(2, 20)),
        scores=scores,
        checkpoint=checkpoint,
        place=folder / "place",
    )


@contextlib.contextmanager
def untouched(case: Case):
    """Fails unless the model, its hooks and flags, torch's modes and the folders are afterwards as they were."""
    model = case.loaded.model
    before = _state(model)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield
    assert _state(model) == before
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
    left = [path.name for path in case.place.rglob("*") if "partial" in path.name and "stream" not in path.name]
    assert not left


def _state(model: torch.nn.Module) -> tuple:
    hooks = [
        (list(module._forward_pre_hooks), list(module._forward_hooks), module.training) for module in model.modules()
    ]
    flags = [(parameter.requires_grad, parameter.grad is None) for parameter in model.parameters()]
    return hooks, flags


@pytest.fixture
def quick(tmp_path) -> Case:
    return _case(2, tmp_path)


@pytest.mark.parametrize("name", cases(CALLS, test=lambda name: name not in PROVED, check=["observe", "score"]))
def test_a_stop_at_any_figure_leaves_nothing_behind(quick, name):
    told: list[tuple] = []
    with untouched(quick):
        CALLS[name](quick, lambda *figures: told.append(figures))
    assert told, "nothing was ever told, so nothing could stop it"
    places = {0, len(told) - 1, *(len(told) * share // 7 for share in range(1, 7))}
    for number, place in enumerate(sorted(places)):
        _empty(quick.place)
        left, raised = place, False

        def stop(done: int, total: int, unit: str) -> None:
            nonlocal left
            if left <= 0:
                raise ta.Cancelled
            left -= 1

        with untouched(quick):
            try:
                CALLS[name](quick, stop)
            except ta.Cancelled:
                raised = True
        # how often a waiting process is looked after is the machine's affair
        assert raised or name in PROVED
        if not raised:
            continue
        if "recover" not in name and "stream" not in name:  # these keep what they can go on from
            assert not list(quick.place.iterdir()), f"left by the stop at figure {place} (number {number})"


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.mark.parametrize(
    "name", cases([name for name in CALLS if name not in AT_ONCE], test=["observe", "prune, best", "stream_prune"])
)
def test_a_stop_within_a_batch_is_heard(tmp_path, name):
    case = _case(LAYERS, tmp_path)
    after = random.Random(name).uniform(0.1, 4.0)
    began = time.monotonic()
    stopped_at = began + after

    def stop(done: int, total: int, unit: str) -> None:
        if time.monotonic() >= stopped_at:
            raise ta.Cancelled

    with slowed(case.loaded, LAYER_SECONDS), untouched(case):
        with contextlib.suppress(ta.Cancelled):  # what is through before is no matter of stopping
            CALLS[name](case, stop)
        assert time.monotonic() - stopped_at < HEARD_SECONDS
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in case.loaded.model.modules())


def test_loading_is_told_of_every_tensor(quick):
    told = []
    loaded = ta.load(str(quick.checkpoint), progress=lambda *figures: told.append(figures))
    assert len(told) > len(list(loaded.model.parameters()))
    assert told == sorted(told)
