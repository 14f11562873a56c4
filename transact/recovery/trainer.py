"""One phase of training by `transformers.Trainer`, on whatever `accelerate` was launched on.

The Trainer sees a module that returns the loss; everything else (optimiser, schedule, several processes, saving and
resuming) is the Trainer's. Added here: distillation, LoRA, progress that can cancel it, live figures, and errors that
name the last good checkpoint.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn import functional
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from transact.errors import InvalidOption, TrainingFailed
from transact.layers.hooks import checking, copy_without_hooks
from transact.layers.weights import without_tied_copies
from transact.models.chunked_logits import Head, at_least_float32, head_of, summed_loss, without_decoder
from transact.models.loaded_model import LoadedModel
from transact.progress import Progress, StoppedEarly
from transact.recovery.best_weights import BestWeights
from transact.recovery.savepoints import RecoveryPoint, last_checkpoint
from transact.recovery.schedule import RecoverySettings, rate_share
from transact.recovery.training_errors import explained_failures
from transact.recovery.training_text import IGNORED, TrainingText, collate, dataset_of, step_tokens
from transact.runtime.distributed import is_sharded, rank_and_count
from transact.spec.family import Family
from transact.text.tokens import TokenSet

_KEPT_CHECKPOINTS = 2
_BEST = "best.safetensors"


@dataclass(frozen=True)
class Watchers:
    """Callbacks of a training. `measure` returns the perplexity of the current model; `stop` whether to end early."""

    progress: Progress
    report: Callable[[RecoveryPoint], None]
    measure: Callable[[], float] | None
    stop: Callable[[], bool]


@dataclass(frozen=True)
class PhaseRun:
    """One phase's training: `steps` at the peak rate `learning_rate`, its figures `start` with the rest filled in.

    `directory` takes the Trainer's checkpoints where it is `resumable`, and resumes from one found there.
    `keep_best`: the weights of the lowest measured perplexity are restored at the end.
    """

    steps: int
    learning_rate: float
    start: RecoveryPoint
    directory: Path
    resumable: bool
    keep_best: bool


def train(
    loaded: LoadedModel,
    dense: LoadedModel,
    text: TrainingText,
    settings: RecoverySettings,
    run: PhaseRun,
    watchers: Watchers,
) -> int:
    """Train `loaded` in place as `run` says, or until `watchers.stop` says so; returns the steps done.

    `stop` is checked at every decoder layer, and the current step is dropped; where training is resumable it is checked
    between steps, so that all of them are in a checkpoint. The progress may raise at every layer either way.

    Raises `TrainingFailed` for a loss that is NaN or infinite and for a lost process, `SaveRefused` for a disk that
    refuses, and whatever the progress raises.
    """
    model = loaded.model.requires_grad_(True)
    adapted = _with_adapters(model, loaded, settings)
    student = _Student(adapted, dense if settings.loss == "distillation" else None, settings.temperature, loaded.layout)
    # a sharded module stays sharded and can only be trained, so that a copy is trained
    trained = copy_without_hooks(student, {id(student.teacher): student.teacher}) if is_sharded() else student
    tokens = partial(step_tokens, text=text, settings=settings)
    best = BestWeights(run.directory / _BEST if run.resumable else None) if run.keep_best else None
    watch = _Watch(student, trained, settings, run, watchers, tokens, best)
    trainer = _Trainer(
        partial(rate_share, steps=run.steps, settings=settings),
        model=trained,
        args=_arguments(settings, text, run, on_cpu=loaded.device.type == "cpu"),
        train_dataset=dataset_of(text),
        data_collator=collate,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        with explained_failures(run.directory), checking([*loaded.stages, *dense.stages], watch.check):
            trainer.train(resume_from_checkpoint=last_checkpoint(run.directory) if run.resumable else None)
    except StoppedEarly:
        trained.zero_grad()
        watch.last_perplexity = math.inf  # the weights as they are now were not measured
    watch.gather()
    if best is not None:
        best.restore(student, watch.last_perplexity)
    if settings.lora_rank:
        adapted.merge_and_unload()
    model.eval().requires_grad_(True)
    return trainer.state.global_step


def _arguments(settings: RecoverySettings, text: TrainingText, run: PhaseRun, *, on_cpu: bool) -> TrainingArguments:
    processes = rank_and_count()[1]
    micro = settings.micro_batch_size or max(1, settings.batch_size // processes)
    if settings.batch_size % (micro * processes):
        raise InvalidOption(
            f"A batch of {settings.batch_size} sequences is no whole number of {micro} sequences in each of "
            f"{processes} processes. Change batch_size or micro_batch_size."
        )
    return TrainingArguments(
        output_dir=str(run.directory),
        max_steps=run.steps,
        learning_rate=run.learning_rate,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // (micro * processes),
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=_in_bfloat16(settings.precision, on_cpu),
        use_cpu=on_cpu,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        save_strategy="steps" if run.resumable else "no",
        save_steps=settings.save_every,
        save_total_limit=_KEPT_CHECKPOINTS,
        seed=settings.seed,
        data_seed=settings.seed,  # otherwise the order of the text depends on the process's generator
        # an incomplete last batch would be filled up differently in several processes than in one
        dataloader_drop_last=not isinstance(text, TokenSet) or text.num_samples >= settings.batch_size,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=not on_cpu,
        report_to=[],
        disable_tqdm=True,
    )


def _in_bfloat16(precision: str, on_cpu: bool) -> bool:
    if precision != "auto":
        return precision == "bfloat16"
    return not on_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _with_adapters(model: torch.nn.Module, loaded: LoadedModel, settings: RecoverySettings) -> torch.nn.Module:
    """The model, or with LoRA the model with adapters in its projections, which alone are trained."""
    if not settings.lora_rank:
        return model
    try:
        from peft import LoraConfig, get_peft_model
        from peft.tuners.lora import LoraLayer
    except ImportError:
        raise InvalidOption("LoRA needs the package peft. Install it (pip install peft), or set lora_rank=0.") from None
    names = sorted({path.rpartition(".")[2] for path in loaded.layout.projections})
    config = LoraConfig(r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=names)
    adapted = get_peft_model(model, config)
    generator = torch.Generator(loaded.device).manual_seed(settings.seed)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for first in module.lora_A.values():  # as peft fills it, but from a generator of our own; lora_B is zero
                torch.nn.init.kaiming_uniform_(first.weight, a=math.sqrt(5), generator=generator)
    return adapted


class _Trainer(Trainer):
    """With a learning rate of our own: `share_at` gives each step's share of the peak."""

    def __init__(self, share_at: Callable[[int], float], **options):
        super().__init__(**options)
        self.share_at = share_at

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        optimizer = self.optimizer if optimizer is None else optimizer
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: self.share_at(done + 1))
        return self.lr_scheduler


class _Student(torch.nn.Module):
    """The model as the Trainer takes it: token ids and labels in, the loss out."""

    accepts_loss_kwargs = True

    def __init__(self, model: torch.nn.Module, teacher: LoadedModel | None, temperature: float, layout: Family):
        super().__init__()
        self.model = model
        # no part of this module: neither trained nor saved
        object.__setattr__(self, "teacher", None if teacher is None else teacher.model)
        self.temperature = temperature
        self.layout = layout
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # what FSDP shards by

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """The loss over all predictions; divided by their number in the whole step where that is given."""
        counted = (labels != IGNORED)[:, 1:]
        targets = labels[:, 1:][counted]
        model = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model  # of adapters
        head_model, hidden = self._hidden(model, input_ids, counted)
        if self.teacher is None:
            loss = partial(_likelihood_loss, targets)
        else:
            with torch.no_grad():
                teacher, teacher_hidden = self._hidden(self.teacher.to(input_ids.device), input_ids, counted)
            loss = partial(_distillation_loss, head_of(teacher), teacher_hidden, self.temperature)
        total = summed_loss(head_model, hidden, model.config.vocab_size, loss)
        return {"loss": total / (counted.sum() if num_items_in_batch is None else num_items_in_batch)}

    def _hidden(
        self, model: torch.nn.Module, input_ids: torch.Tensor, counted: torch.Tensor
    ) -> tuple[torch.nn.Module, torch.Tensor]:
        """The model without its decoder, and the decoder's output at the positions that count, [row, hidden].

        Padding stands to the right, where no real token sees it.
        """
        hidden = model.get_submodule(self.layout.decoder)(input_ids=input_ids, use_cache=False).last_hidden_state[
            :, :-1
        ][counted]
        return without_decoder(model, self.layout), hidden

    def state_dict(self, *arguments, **options) -> dict[str, torch.Tensor]:
        """Every tensor once: the files that it is saved in have no ties."""
        return without_tied_copies(super().state_dict(*arguments, **options))


def _likelihood_loss(targets: torch.Tensor, logits: torch.Tensor, block: slice) -> torch.Tensor:
    """−Σ log q of the next tokens `targets` [row]."""
    return functional.cross_entropy(at_least_float32(logits), targets[block], reduction="sum")


def _distillation_loss(
    teacher: Head, teacher_hidden: torch.Tensor, temperature: float, logits: torch.Tensor, block: slice
) -> torch.Tensor:
    """T² · Σ KL(teacher ‖ student) at temperature T; `teacher_hidden` [row, hidden] is what its head reads."""
    with torch.no_grad():
        dense = functional.log_softmax(at_least_float32(teacher(teacher_hidden[block])) / temperature, dim=-1)
    own = functional.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    return temperature**2 * functional.kl_div(own, dense, reduction="sum", log_target=True)


class _Watch(TrainerCallback):
    """Reports and measures between steps; checks for cancellation there and within them."""

    def __init__(
        self,
        student: _Student,
        trained: _Student,
        settings: RecoverySettings,
        run: PhaseRun,
        watchers: Watchers,
        tokens: Callable[[int], int],
        best: BestWeights | None = None,
    ):
        self.student, self.trained = student, trained
        self.settings = settings
        self.run = run
        self.watchers = watchers
        self.tokens = tokens
        self.best = best
        self.step = 0
        self.stopped = False
        self.last_perplexity: float | None = None
        self.began: tuple[float, int] | None = None

    def check(self) -> None:
        """Within a step, at every decoder layer."""
        self.watchers.progress(self.step, self.run.steps, "steps")
        if not self.run.resumable and self.watchers.stop():
            raise StoppedEarly

    def on_step_begin(self, args, state, control, **others):
        self.step = state.global_step
        if self.began is None:
            self.began = (time.perf_counter(), state.global_step)

    def on_step_end(self, args, state, control, **others):
        step = self.step = state.global_step
        self.watchers.progress(step, self.run.steps, "steps")
        self.stopped = self.stopped or self.watchers.stop()
        control.should_training_stop |= self.stopped
        control.should_save |= self.stopped and args.save_strategy != "no"
        ends = step == self.run.steps or self.stopped
        if self.watchers.measure is not None and (ends or step % self.settings.evaluate_every == 0):
            self._measure(step)

    def on_log(self, args, state, control, logs=None, **others):
        if "loss" not in (logs or {}):
            return
        if not math.isfinite(logs["loss"]):
            raise TrainingFailed(
                f"The loss became {logs['loss']} at step {state.global_step}, learning rate "
                f"{logs['learning_rate']:g}. Lower the learning rate; if the loss was NaN from the first step, the "
                "weights or the text may be damaged."
            )
        assert self.began is not None, "a step begins before it logs"
        began, first = self.began
        step = state.global_step
        self._report(
            step,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens_per_second=self.tokens(step - first) / max(time.perf_counter() - began, 1e-9),
        )

    def _report(self, step: int, **figures: Any) -> None:
        self.watchers.report(replace(self.run.start, step=step, tokens=self.tokens(step), **figures))

    def gather(self) -> None:
        """Copy the trained weights to the student, where a sharded copy of it is trained."""
        if self.trained is not self.student:
            whole = get_model_state_dict(self.trained, options=StateDictOptions(full_state_dict=True))
            self.student.load_state_dict(whole, strict=False)

    def _measure(self, step: int) -> None:
        self.gather()
        self.student.eval()
        assert self.watchers.measure is not None, "called only where there is a text to measure on"
        perplexity = self.last_perplexity = self.watchers.measure()
        self._report(step, perplexity=perplexity)
        if self.best is not None:
            self.best.offer(perplexity, self.student)
