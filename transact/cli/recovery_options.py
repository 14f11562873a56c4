"""The options of `recover`: every setting of `RecoverySettings` under its own name, and the training text."""

from argparse import ArgumentTypeError, Namespace
from dataclasses import MISSING, fields
from pathlib import Path

from transact.cli.option_problems import held_out_problem, target_problem
from transact.cli.options import PLANNING, Group, Option
from transact.recovery.schedule import COMPENSATIONS_BEFORE_TRAINING, LOSSES, PRECISIONS, SCHEDULERS, RecoverySettings

_NAMED = {
    "loss": LOSSES,
    "scheduler": SCHEDULERS,
    "precision": PRECISIONS,
    "compensation": COMPENSATIONS_BEFORE_TRAINING,
}
_HELP = {
    "shots": "in how many cuts, each scored on the model as it is then",
    "shot_tokens": "tokens trained on between the shots, all of them together; rising from shot to shot",
    "first_shot_share": "tokens of the first shot as a share of the shots' mean",
    "shot_rate_rise": "peak learning rate of the last shot as a multiple of --learning-rate; rising up to there",
    "recovery_tokens": "tokens trained on after the last shot",
    "learning_rate": "peak learning rate of the recovery",
    "warmup": "share of a phase's steps over which the rate rises",
    "scheduler": "how the rate falls afterwards",
    "batch_size": "sequences of one step, all processes together",
    "micro_batch_size": "sequences of one forward pass in one process (default: all it has of a step)",
    "adam_beta1": "decay of AdamW's mean",
    "adam_beta2": "decay of AdamW's second moment",
    "weight_decay": "weight decay of AdamW",
    "max_grad_norm": "gradients are clipped to this norm",
    "loss": "language_model: predict the text; distillation: predict what the dense model does",
    "temperature": "of distillation",
    "lora_rank": "above 0: train adapters of this rank alone, merged after each phase (needs peft)",
    "lora_alpha": "scale of the adapters",
    "compensation": "repair after each cut, before training",
    "precision": "what training computes in; auto: bfloat16 where the hardware is made for it",
    "save_every": "steps between checkpoints",
    "evaluate_every": "steps between perplexities",
    "log_every": "steps between losses",
}
"""`metric` and `seed` are among the options of target and calibration text."""


def _number(kind: type):
    def parsed(text: str) -> int | float:
        try:
            value = float(text)
            return kind(value)
        except (ValueError, OverflowError):
            raise ArgumentTypeError(f"{text!r} is no number") from None

    return parsed


def _setting(name: str) -> Option:
    field = next(field for field in fields(RecoverySettings) if field.name == name)
    default = None if field.default is MISSING else field.default
    default_text = "" if default is None else f" (default: {default})"
    number = {"type": _number(float if isinstance(default, float) else int), "metavar": "N"}
    settings = {"choices": _NAMED[name]} if name in _NAMED else number
    return Option(f"--{name.replace('_', '-')}", _HELP[name] + default_text, settings)


TARGET = Group(
    PLANNING.title,
    PLANNING.description,
    tuple(option for option in PLANNING.options if option.flag not in ("--allocation", "--widths")),
)
SETTINGS = Group(
    "shots and training",
    "The defaults are the paper's, for a 7 B model on many GPUs; a small one wants fewer tokens and a higher rate.",
    tuple(_setting(name) for name in _HELP),
)
TEXT = Group(
    "training text",
    "By default the calibration text.",
    (
        Option("--training", "a file read as calibration text is, all of it",
               {"type": Path, "metavar": "FILE"}),
        Option(
            "--own-text",
            "train on this many sequences that the model itself writes, in addition to --training if given",
            {"type": int, "metavar": "N"},
        ),
        Option("--dataset", "stream this Hugging Face dataset instead of a file", {"metavar": "NAME"}),
        Option("--dataset-config", "its configuration", {"metavar": "NAME"}),
        Option("--dataset-split", "its split (default: %(default)s)", {"metavar": "NAME", "default": "train"}),
    ),
)  # fmt: skip
SAVING = Group(
    "going on after an interruption",
    None,
    (
        Option(
            "--checkpoints",
            "keep checkpoints in this folder; the same command goes on from the last of them",
            {"type": Path, "metavar": "DIR"},
        ),
    ),
)


def settings_of(arguments: Namespace) -> RecoverySettings:
    """Settings from the given options, with defaults for the rest; raises `InvalidOption`."""
    named = {name: vars(arguments)[name] for name in _HELP if vars(arguments)[name] is not None}
    metric = {} if arguments.metric is None else {"metric": arguments.metric}
    return RecoverySettings(**named, **metric, seed=arguments.seed)


def recovery_problem(arguments: Namespace) -> str | None:
    """What is wrong with how target and training text were given, if anything."""
    if arguments.dataset is not None and (arguments.training is not None or arguments.own_text is not None):
        return "--dataset is streamed by itself; leave out --training and --own-text"
    if arguments.own_text is not None and arguments.own_text < 1:
        return "--own-text takes a number of sequences from 1"
    return held_out_problem(arguments) or target_problem(arguments)
