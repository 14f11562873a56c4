"""Iterative pruning: cut a little, train a little, score again, and so on to the target; then train on.

TransAct and the authors' `run_trainer.sh`: redundancy shows better on a model that has recovered from
the last cut. `transact.recovery.schedule` has the numbers, `transact.recovery.trainer` one phase of training,
`transact.recovery.savepoints` what an interrupted run resumes from.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from transact.cutting.prune import prune
from transact.errors import InvalidText, NotEnoughMemory
from transact.evaluation.evaluate import perplexity
from transact.layers.hooks import copy_without_hooks, hooks_suspended
from transact.layers.weights import cast_parameters
from transact.models.loaded_model import LoadedModel
from transact.models.stock_config import check_writable
from transact.models.tasks_by_placement import TRAINING
from transact.observing.observe import observe
from transact.planning.make_plan import make_plan
from transact.planning.search import METRIC as SEARCH
from transact.planning.search import search_plan
from transact.progress import NO_PROGRESS, Cancelled, Check, Progress, StoppedEarly
from transact.recovery.savepoints import RecoveryPoint, Savepoints, last_checkpoint
from transact.recovery.schedule import Phase, RecoverySettings, phases, recovery_cost
from transact.recovery.training_text import StreamedText, TrainingText, num_steps, step_tokens
from transact.repair.repairs import REPAIRS
from transact.runtime.devices import free_bytes
from transact.runtime.distributed import agreed, rank_and_count
from transact.runtime.random_numbers import shared_generators_restored
from transact.scoring.metrics import METRICS
from transact.scoring.scores import score
from transact.spec.locks import NO_LOCKS, Locks
from transact.spec.plan import PruningPlan, compose_cuts
from transact.spec.target import INSIDE_HEADS, PruningTarget
from transact.text.calibration import CalibrationSet
from transact.text.tokens import TokenSet, check_length


@dataclass(frozen=True, eq=False)
class Recovered:
    """`pruned`: the result; `points`: all figures, in order; `stopped`: ended early, so it is the best so far."""

    pruned: LoadedModel
    points: tuple[RecoveryPoint, ...]
    stopped: bool

    @property
    def plan(self) -> PruningPlan:
        """One plan for all cuts."""
        return compose_cuts(self.pruned.cuts)


@hooks_suspended()
def recover(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    target: PruningTarget,
    settings: RecoverySettings | None = None,
    *,
    training: TrainingText | None = None,
    evaluation: TokenSet | None = None,
    locks: Locks | None = None,
    directory: str | Path | None = None,
    report: Callable[[RecoveryPoint], None] = lambda point: None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = NO_PROGRESS,
) -> Recovered:
    """Prune to `target` in shots with training in between; `loaded` is untouched.

    - `calibration` scores before every shot; `training` is what is trained on, by default the calibration text;
      `evaluation` gives the perplexities meanwhile, and of the last phase the weights of the lowest one are kept.
    - `locks`: units of `loaded` that stay in every shot, or are gone after the last one.
    - `directory`: a folder from which the same call resumes after an interruption; None keeps nothing.
    - `report` is called with every figure as it comes; `stop` may end the work early, with the best so far as the
      result: at once, or with a `directory` after the current step, so that it can be resumed there. Before anything is
      cut there is nothing to keep, and `Cancelled` is raised.
    - `progress` is in steps of all phases together, and may raise `Cancelled`: then there is no result, but what is
      in `directory` stays.

    Started in several processes (`accelerate launch`, `torchrun`), each scores its share of the text and trains on its
    share of every batch. All results are equal in all processes.

    The process's random-number generators are restored afterwards. Training seeds them, as dropout (of GPT-2 and OPT as
    published) draws from them; nothing else that is drawn depends on them.

    Raises `InvalidTarget`, `InvalidText`, `InvalidOption`, `NotEnoughMemory`, `TrainingFailed`, `SaveRefused` and
    `CheckpointBroken`, and as `observe`, `search_plan` and `prune` do.
    """
    loaded.check_can(TRAINING)
    check_writable(loaded, target.spec(loaded.spec))
    settings, locks = settings or RecoverySettings(), locks or NO_LOCKS
    texts = _Texts(calibration, calibration if training is None else training, evaluation)
    texts.check_fit(loaded, settings.batch_size)

    def check() -> None:
        progress(0, 1, "steps")
        if directory is None and stop():
            raise Cancelled

    _check_fits(loaded, target, settings, texts.training, check)
    stages = phases(loaded.spec, target, settings, check=check)
    identity = {
        "model": loaded.fingerprint,
        **texts.identity,
        "target": [[shape.num_key_value_heads, shape.intermediate_size] for shape in target.per_layer(loaded.spec)],
        **{name: value for name in INSIDE_HEADS if (value := getattr(target, name)) is not None},
        "locks": locks.to_dict(),
        "settings": settings.to_dict(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        saved = None if directory is None else Savepoints.opened(directory, identity)
        work = _Work(loaded, texts, settings, stages, locks, saved, Path(scratch))
        return work.run(report, stop, progress)


def _check_fits(
    loaded: LoadedModel, target: PruningTarget, settings: RecoverySettings, training: TrainingText, check: Check
) -> None:
    """For one process; several may shard the weights' states, which only their launcher knows."""
    width = training.seq_len if isinstance(training, StreamedText) else training.input_ids.shape[1]
    cost = recovery_cost(loaded.spec, target, settings, seq_len=width, check=check)
    free = free_bytes(loaded.device)
    if cost.tokens and cost.bytes > free and rank_and_count()[1] == 1:
        raise NotEnoughMemory(
            f"Training this model on steps of {settings.batch_size} sequences of {width} tokens needs about "
            f"{cost.bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. Set a smaller micro_batch_size, give shorter "
            "sequences, or train on a larger machine."
        )


@dataclass(frozen=True)
class _Texts:
    """What a recovery reads: to score by, to train on, and to measure on."""

    calibration: CalibrationSet
    training: TrainingText
    evaluation: TokenSet | None

    def check_fit(self, loaded: LoadedModel, batch_size: int) -> None:
        """Raise `InvalidText` for a text that the model or a step cannot be given."""
        training = self.training
        if isinstance(training, TokenSet):
            training.check_fits(loaded)
            if not training.num_predictions:
                raise InvalidText("The training text has no two tokens in a row, so there is nothing to predict.")
        else:
            check_length(training.seq_len, loaded.spec)
            if sum(1 for _ in islice(training.windows(), batch_size)) < batch_size:
                raise InvalidText(
                    f"{training.name} has no {batch_size} sequences of {training.seq_len} tokens, as one step takes. "
                    "Give longer text, shorter sequences or a smaller batch_size."
                )
        if self.evaluation is not None:
            self.evaluation.check_fits(loaded)

    @property
    def identity(self) -> dict[str, str | None]:
        """What identifies the work."""
        text = self.training
        return {
            "calibration": self.calibration.fingerprint,
            "training": text.fingerprint if isinstance(text, TokenSet) else f"{text.name}, {text.protocol}",
            "evaluation": None if self.evaluation is None else self.evaluation.fingerprint,
        }


@dataclass(eq=False)
class _Work:
    """A recovery in progress. Stages are numbered from 1: the cut and the training of a phase are one each.

    `scratch`: a temporary folder, used where `saved` is None.
    """

    dense: LoadedModel
    texts: _Texts
    settings: RecoverySettings
    phases: tuple[Phase, ...]
    locks: Locks
    saved: Savepoints | None
    scratch: Path

    def __post_init__(self) -> None:
        self.steps = [num_steps(phase.tokens, self.texts.training, self.settings) for phase in self.phases]
        self.points: list[RecoveryPoint] = []
        self.steps_done = 0

    def run(self, report: Callable[[RecoveryPoint], None], stop: Callable[[], bool], progress: Progress) -> Recovered:
        self.report, self.stop, self.progress = report, stop, progress
        dense = self._dense_for_training()
        finished, now = (0, dense) if self.saved is None else self.saved.last(dense)
        self._restore_points(finished)
        stopped = False
        try:
            if not self.points:
                self._measured("dense", now)
            for index, phase in enumerate(self.phases):
                cut, trained = 2 * index + 1, 2 * index + 2
                if phase.target is not None and finished < cut:
                    now = self._cut(now, phase.target, is_last=index == len(self.phases) - 2)
                    self._measured(phase.name, now)
                    self._keep(cut, now)
                if self.steps[index] and finished < trained:
                    now, stopped = self._trained(now, index)
                    if not stopped:
                        self._keep(trained, now)
                if stopped or stop():
                    raise StoppedEarly
        except StoppedEarly:
            if len(now.cuts) == len(self.dense.cuts):
                raise Cancelled from None
            stopped = True
        cast_parameters(now.model, self.dense.dtype)
        return Recovered(now, tuple(self.points), stopped)

    def _dense_for_training(self) -> LoadedModel:
        """The dense model in float32 at least: small updates are lost on half-precision weights."""
        if self.dense.dtype.itemsize >= torch.float32.itemsize:
            return self.dense
        model = copy_without_hooks(self.dense.model)
        cast_parameters(model, torch.float32)
        return replace(self.dense, model=model)

    def _cut(self, now: LoadedModel, target: PruningTarget, *, is_last: bool) -> LoadedModel:
        shots = now.cuts[len(self.dense.cuts) :]
        locks = self.locks.renumbered(compose_cuts(shots).layers) if shots else self.locks
        locks = locks if is_last else locks.only_keeping
        settings, repair = self.settings, self.settings.compensation
        searched = settings.metric == SEARCH
        gram = REPAIRS[repair].gram_option(now.spec) or ("attention" if searched else False)
        taylor = not searched and METRICS[settings.metric].needs_gradients
        statistics = observe(
            now,
            self.texts.calibration,
            gram=gram,
            taylor=taylor,
            queries=target.keep_query_key_dim is not None,
            progress=self._watch,
        )
        if searched:
            plan = search_plan(now, statistics, target, locks=locks, progress=self._watch)
        else:
            scores = score(now, statistics, metric=settings.metric, seed=settings.seed)
            plan = make_plan(scores, now.spec, target, locks=locks)
        plan = agreed(plan)
        return prune(now, plan, compensation=repair, statistics=statistics, progress=self._watch)

    def _watch(self, done: int, total: int, unit: str) -> None:
        """Between steps nothing counts, but cancellation is checked."""
        self.progress(self.steps_done, max(sum(self.steps), 1), "steps")
        if self.saved is None and self.stop():
            raise StoppedEarly

    def _trained(self, now: LoadedModel, index: int) -> tuple[LoadedModel, bool]:
        from transact.recovery.trainer import PhaseRun, Watchers, train  # the Trainer takes a second to import

        phase, steps, training = self.phases[index], self.steps[index], self.texts.training
        before, steps_in_all = sum(self.steps[:index]), sum(self.steps)

        def watch(done: int, total: int, unit: str) -> None:
            self.steps_done = before + done
            self.progress(before + done, steps_in_all, "steps")

        measure = None if self.texts.evaluation is None else lambda: self._perplexity(now)
        run = PhaseRun(
            steps=steps,
            learning_rate=phase.learning_rate,
            start=RecoveryPoint(phase.name, 0, 0, now.spec.num_parameters),
            directory=self.scratch if self.saved is None else self.saved.training,
            resumable=self.saved is not None,
            keep_best=phase.target is None,
        )
        watchers = Watchers(watch, self._add, measure, self.stop)
        with shared_generators_restored():  # the Trainer seeds them
            done = train(now, self.dense, self.texts.training, self.settings, run, watchers)
        if not done:
            return now, True
        words = (
            f"{phase.name}: {step_tokens(done, training, self.settings):,} tokens of {training.name}, loss "
            f"{self.settings.loss}, learning rate {phase.learning_rate:g}, seed {self.settings.seed}"
        )
        last = now.cuts[-1]
        trained = replace(last, trained="; ".join(filter(None, (last.trained, words))))
        return replace(now, cuts=(*now.cuts[:-1], trained)), done < steps

    def _perplexity(self, now: LoadedModel) -> float:
        assert self.texts.evaluation is not None, "called only where there is a text to measure on"
        return perplexity(now, self.texts.evaluation, progress=self._watch)

    def _measured(self, phase: str, now: LoadedModel) -> None:
        measured = None if self.texts.evaluation is None else self._perplexity(now)
        self._add(RecoveryPoint(phase, 0, 0, now.spec.num_parameters, perplexity=measured))

    def _add(self, point: RecoveryPoint) -> None:
        self.points.append(point)
        if self.saved is not None:
            self.saved.add_point(point)
        self.report(point)

    def _keep(self, stage: int, now: LoadedModel) -> None:
        if self.saved is not None:
            self.saved.keep(stage, now)

    def _restore_points(self, finished: int) -> None:
        """Take up the figures of the stages and steps that are not repeated."""
        if self.saved is None:
            return
        checkpoint = last_checkpoint(self.saved.training)
        reached = 0 if checkpoint is None else int(Path(checkpoint).name.rpartition("-")[2])
        last_steps = {"dense": 0}
        for index, phase in enumerate(self.phases):
            if finished >= 2 * index + 2:
                last_steps[phase.name] = self.steps[index]
            elif phase.target is None or finished == 2 * index + 1:
                last_steps[phase.name] = reached  # the checkpoints are of the current phase
        self.points = [point for point in self.saved.points() if point.step <= last_steps.get(point.phase, -1)]
        self.saved.rewrite_points(self.points)
