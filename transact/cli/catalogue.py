"""The table of commands: name, options, example and function of each."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transact.cli import app, commands, option_problems, options, recovery_options
from transact.cli.bars import Meter
from transact.cli.commands import Answer
from transact.cli.options import Group, Option
from transact.export.gguf.writer import GGUF_TYPES

EXPORT_KINDS = ("checkpoint", "gguf", "plan")


@dataclass(frozen=True)
class Command:
    """`problem` says what is wrong with options that conflict; `run` does the work."""

    name: str
    summary: str
    description: str
    example: str
    groups: tuple[Group, ...]
    run: Callable[[Namespace, Meter], Answer]
    problem: Callable[[Namespace], str | None] = option_problems.no_problem


def _output(help: str, *others: Option, metavar: str = "FILE", **settings) -> Group:
    """Where the result is written and in what form; existing files are never replaced."""
    output = Option("--output", help, {"type": Path, "metavar": metavar, **settings})
    return Group("result", None, (*others, output, *options.TELLING))


_CHECKPOINT = _output(
    "save a checkpoint with tokenizer, plan and model card in this new folder, in the dtype of the model's own files",
    options.LAYERS,
    options.NO_PROOF,
    metavar="DIR",
)
_FROM_A_PLAN = (options.MODEL, options.PLAN_FILE, options.CALIBRATION_UNLESS_PLANNED, options.PLANNING, options.REPAIR)

COMMANDS = (
    Command(
        "score",
        "how much each head and channel matters",
        "Run calibration text through a model and score every head, head group and MLP channel. Prints\n"
        "how the scores of each layer spread; --json and --output give all of them.",
        """\
  python -m transact score --model bundled --calibration assets/samples/stories.jsonl --metric wanda""",
        (
            options.MODEL,
            options.CALIBRATION,
            options.SCORING,
            options.STREAM,
            _output("write all scores as JSON to this new file"),
        ),
        commands.score,
    ),
    Command(
        "plan",
        "decide what stays and what goes, and see what that saves",
        "Score a model, or take a file of scores, and decide what to keep; nothing is cut. The plan goes to a file\n"
        "that prune and export take. What it saves is printed: parameters, FLOPs at a context of 512, bytes in 16-bit\n"
        "elements.",
        """\
  python -m transact plan --model bundled --calibration assets/samples/stories.jsonl \\
      --attention-sparsity 0.25 --mlp-sparsity 0.5 --output plan.json""",
        (
            options.MODEL,
            options.SCORES_FILE,
            options.CALIBRATION_UNLESS_PLANNED,
            options.PLANNING,
            _output("write the plan to this new file (default: %(default)s)", default=Path("plan.json")),
        ),
        commands.plan,
        option_problems.scores_problem,
    ),
    Command(
        "prune",
        "cut a plan into a model; save it, measure it, or both",
        "Cut a plan into a copy of a model, repair what stays if asked to, save the result as a checkpoint that\n"
        "stock transformers loads, and measure it against the dense model: perplexity, agreement, tokens per\n"
        "second, FLOPs per token, bytes.",
        """\
  python -m transact prune --model bundled --calibration assets/samples/stories.jsonl \\
      --attention-sparsity 0.25 --mlp-sparsity 0.5 --compensation least_squares \\
      --evaluation assets/samples/evaluation_stories.jsonl --output pruned-model""",
        (
            *_FROM_A_PLAN,
            options.STREAM,
            options.EVALUATION_OR_NOT,
            _CHECKPOINT,
        ),
        commands.prune,
        option_problems.prune_problem,
    ),
    Command(
        "compress",
        "a smaller model of a size, as good as the minutes allow",
        "Name a size and a time: what goes, how it is shared out among the layers, refitted and taught by the dense\n"
        "model is chosen for you. Saves the result as prune does, measures it, or both.",
        """\
  python -m transact compress --model bundled --calibration assets/samples/stories.jsonl --size 0.75 --minutes 1 \\
      --evaluation assets/samples/evaluation_stories.jsonl --output smaller-model""",
        (options.MODEL, options.CALIBRATION, options.COMPRESSION, options.EVALUATION_OR_NOT, _CHECKPOINT),
        commands.compress,
        option_problems.compression_problem,
    ),
    Command(
        "recover",
        "prune in shots with training in between",
        "Cut a little, train, score again, down to the target; then train on. In one process, or in as many as\n"
        "`accelerate launch --num_processes N -m transact recover ...` starts on GPUs, and\n"
        "`ACCELERATE_USE_CPU=true torchrun --nproc_per_node N -m transact recover ...` on CPUs.",
        """\
  python -m transact recover --model bundled --calibration assets/samples/stories.jsonl \\
      --attention-sparsity 0.5 --mlp-sparsity 0.5 --shots 4 --shot-tokens 4e5 --recovery-tokens 4e5 \\
      --learning-rate 1e-3 --batch-size 16 --loss distillation --own-text 256 \\
      --checkpoints recovery --output recovered-model""",
        (
            options.MODEL,
            options.CALIBRATION,
            recovery_options.TARGET,
            recovery_options.SETTINGS,
            recovery_options.TEXT,
            options.EVALUATION_ON_THE_WAY,
            recovery_options.SAVING,
            _output(
                "save the result, as prune does, in this new folder",
                options.LAYERS,
                options.NO_PROOF,
                metavar="DIR",
                required=True,
            ),
        ),
        commands.recover,
        recovery_options.recovery_problem,
    ),
    Command(
        "evaluate",
        "measure a model, alone or beside a reference",
        "Measure a model on a text: perplexity (with its standard error over texts), tokens per second, parameters,\n"
        "FLOPs per token at a context of 512, bytes; with --reference also how often both rate the same token\n"
        "highest, and the KL divergence in nats.",
        """\
  python -m transact evaluate --model pruned-model --reference bundled \\
      --evaluation assets/samples/evaluation_stories.jsonl""",
        (options.MODEL, options.REFERENCE, options.STREAM, options.EVALUATION, Group("result", None, options.TELLING)),
        commands.evaluate,
        option_problems.reference_problem,
    ),
    Command(
        "tasks",
        "run standard benchmarks on a model, alone or beside a reference",
        "Run named tasks of lm_eval on a model as it is in memory, and with --reference on that too, in one table\n"
        "with the harness's version.",
        """\
  python -m transact tasks --model pruned-model --reference bundled --tasks arc_easy,hellaswag --limit 200""",
        (options.MODEL, options.REFERENCE, options.TASKS, Group("result", None, options.TELLING)),
        commands.tasks,
        option_problems.reference_problem,
    ),
    Command(
        "export",
        "write a planned model for other software",
        "Write a planned model: as a checkpoint that stock transformers loads, as a GGUF file that llama.cpp runs, or\n"
        "as the plan alone.",
        """\
  python -m transact export --model bundled --plan plan.json --kind checkpoint --output pruned-model""",
        (
            *_FROM_A_PLAN,
            _output(
                "write to this new folder, or for gguf and a plan to this new file",
                Option(
                    "--kind",
                    "checkpoint: a folder with weights, tokenizer, plan and model card; gguf: one file with weights "
                    "and tokenizer (needs pip install gguf); plan: one JSON file (default: %(default)s)",
                    {"choices": EXPORT_KINDS, "default": "checkpoint"},
                ),
                Option(
                    "--file-type",
                    f"how a GGUF file stores matrices (default: {options.GGUF_TYPE})",
                    {"choices": GGUF_TYPES},
                ),
                options.LAYERS,
                options.NO_PROOF,
                metavar="PATH",
                required=True,
            ),
        ),
        commands.export,
        option_problems.export_problem,
    ),
    Command(
        "push",
        "put a saved checkpoint on the Hugging Face hub",
        "Put the files of a saved checkpoint into a model repository on the Hugging Face hub, in one commit. A new\n"
        "repository is private. The account is that of HF_TOKEN or `hf auth login`.",
        """\
  python -m transact push pruned-model --repo small-model""",
        (options.PUSHING, Group("result", None, options.TELLING)),
        commands.push,
    ),
)

APP = Command(
    "app",
    "start the app and print its address",
    "Start the app, in place of this process, and print its address. Needs pip install 'transact-explorer[app]'.\n"
    "See docs/hosting.md for settings in environment variables.",
    """\
  python -m transact app --port 7861""",
    (Group("server", None, app.OPTIONS),),
    app.start,
)
"""Apart from `COMMANDS`, as it returns no answer: the app replaces the process."""
