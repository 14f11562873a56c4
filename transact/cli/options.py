"""Every option as data: its name, what it takes, what it means.

Options that a plan file replaces have no default of their own, so that giving both can be detected.
"""

from argparse import ArgumentTypeError, BooleanOptionalAction
from dataclasses import dataclass
from pathlib import Path

from transact.compression.recipe import WIDTHS
from transact.export.checkpoint import LAYERS as LAYERS_OF_A_CHECKPOINT
from transact.models.loaded_model import DTYPES
from transact.planning.allocation import ALLOCATIONS
from transact.planning.search import METRIC as SEARCH
from transact.repair.repairs import COMPENSATIONS
from transact.scoring.metrics import METRICS
from transact.spec.target import GRANULARITIES

METRIC, ALLOCATION, GGUF_TYPE = "transact", "uniform", "f16"
SEQ_LEN = 512
"""Longest sequence by default; the model's context where that is shorter."""


@dataclass(frozen=True)
class Option:
    """`settings` as `argparse` takes them."""

    flag: str
    help: str
    settings: dict


@dataclass(frozen=True)
class Group:
    title: str
    description: str | None
    options: tuple[Option, ...]


def counts(text: str) -> int | tuple[int, ...]:
    """One number for all layers, or a tuple with one per layer: "3" -> 3, "4,3,2" -> (4, 3, 2)."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is neither a whole number nor several with commas between") from None
    return numbers if len(numbers) > 1 else numbers[0]


def names(text: str) -> tuple[str, ...]:
    """Names with commas between: "a, b" -> ("a", "b")."""
    return tuple(name for name in map(str.strip, text.split(",")) if name)


def _option(flag: str, help: str, **settings) -> Option:
    return Option(flag, help, settings)


_READING = (
    _option("--column", 'the field of a row that holds the text (default: "text")', metavar="NAME"),
    _option("--chat", 'read conversations, {"messages": [{"role": "user", "content": "..."}, ...]} a row, through the '
            "model's own chat template; files without any are read as text", action="store_true"),
    _option("--bos", "begin every sequence and window with BOS, or with nothing (default: as the model's own tokenizer "
            "begins one)", action=BooleanOptionalAction, default=None),
)  # fmt: skip


def _calibration(*, required: bool) -> Group:
    return Group(
        "calibration text",
        "The text that scores. The same file, samples, length and seed give the same scores.",
        (
            _option("--calibration", ".jsonl, .json, .csv, .parquet: each row one sequence, long ones cut into windows "
                    "where there are fewer than --num-samples; .txt: one document, cut into windows; UTF-8",
                    type=Path, metavar="FILE", required=required),
            _option("--num-samples", "most sequences taken; of more, this many are drawn (default: %(default)s)",
                    type=int, default=128, metavar="N"),
            _option("--seq-len", f"most tokens of a sequence (default: {SEQ_LEN}, or the model's context if shorter)",
                    type=int, metavar="TOKENS"),
            _option("--seed", "draws the sequences, and the scores of --metric random (default: %(default)s)",
                    type=int, default=0, metavar="N"),
            *_READING,
        ),
    )  # fmt: skip


def _evaluation_text(*, required: bool) -> tuple[Option, ...]:
    return (
        _option("--evaluation", "a file read as calibration text is, all of it",
                type=Path, metavar="FILE", required=required),
        _option("--evaluation-seq-len",
                f"most tokens of a sequence (default: {SEQ_LEN}, or the model's context if shorter)",
                type=int, metavar="TOKENS"),
    )  # fmt: skip


_EVALUATION_SIZE = (
    _option("--evaluation-samples", "the first N sequences of it alone (default: all)", type=int, metavar="N"),
    _option("--evaluation-tokens", "of the first sequences as many as have together at most N tokens (default: all)",
            type=int, metavar="N"),
)  # fmt: skip
_HELD_OUT = _option(
    "--held-out", "leave the last SHARE of the calibration text, as 0.1, out of scoring, and measure on it where "
    "there is no --evaluation", type=float, metavar="SHARE",
)  # fmt: skip


def _evaluation(*, required: bool, alone: bool) -> Group:
    return Group(
        "evaluation text",
        "The text that measures.",
        (
            *_evaluation_text(required=required),
            *(() if alone else (_HELD_OUT,)),
            *_EVALUATION_SIZE,
            _option("--prompt", "also continue this text, greedily", metavar="TEXT"),
            _option("--no-speed", "do not time the models", action="store_true"),
            *(_READING if alone else ()),
        ),
    )  # fmt: skip


MODEL = Group(
    "model",
    None,
    (
        _option("--model", 'a hub id, a local folder, or "bundled"', required=True),
        _option("--revision", "commit, branch or tag of a hub model (default: its main branch)"),
        _option("--dtype", "what to compute in; auto: float32, or the checkpoint's half precision where the machine is "
                "fast at it (default: %(default)s)", choices=("auto", *DTYPES), default="auto"),
        _option("--device", "auto, cpu, cuda, cuda:N, or balanced: spread over all GPUs (default: %(default)s)",
                default="auto"),
    ),
)  # fmt: skip

STREAM = Group(
    "larger than memory",
    "Layer by layer from the model's files, one in memory at a time; interrupted, the same command goes on.",
    (
        _option("--stream", "always; auto: where the model does not fit into memory; never (default: auto; --stream "
                "alone: always)", nargs="?", choices=("always", "auto", "never"), const="always", default="auto"),
    ),
)  # fmt: skip

CALIBRATION = _calibration(required=True)
CALIBRATION_UNLESS_PLANNED = _calibration(required=False)
EVALUATION = _evaluation(required=True, alone=True)
EVALUATION_OR_NOT = _evaluation(required=False, alone=False)
EVALUATION_ON_THE_WAY = Group(
    "evaluation text",
    "Gives the perplexities during training; the weights of the lowest one are kept.",
    (
        *_evaluation_text(required=False),
        _HELD_OUT,
        *_EVALUATION_SIZE,
    ),
)

_METRICS = "; ".join(f"{name}: {metric.summary}" for name, metric in METRICS.items())
METRIC_OPTION = _option(
    "--metric", f"how importance is measured; {_METRICS} (default: {METRIC})", choices=tuple(METRICS)
)
PLAN_METRIC_OPTION = _option(
    "--metric",
    f"what decides; {_METRICS}; {SEARCH}: what --compensation best can do without, found by running the model again, "
    f"the same number in each layer (default: {METRIC})",
    choices=(*METRICS, SEARCH),
)
SCORING = Group("scores", None, (METRIC_OPTION,))

PLANNING = Group(
    "what to remove",
    "Name a share, or a total, or counts. Sparsity is the fraction removed, from 0 to below 1.",
    (
        PLAN_METRIC_OPTION,
        _option("--attention-sparsity", "share of each layer's head groups that goes (default: 0)",
                type=float, metavar="SHARE"),
        _option("--granularity", "what attention sparsity counts; head_groups: whole groups; heads: the query heads of "
                "every group, the same number of each, which leaves the KV cache as it is; head_dims: RoPE pairs and "
                "value channels of every head (default: head_groups)",
                choices=GRANULARITIES),
        _option("--mlp-sparsity", "share of each layer's MLP channels that goes (default: 0)",
                type=float, metavar="SHARE"),
        _option("--parameters", "most parameters that the result may have, embeddings included, as 900e6",
                type=float, metavar="N"),
        _option("--multiple-of", "round the channels that stay down to a multiple of this, as kernels and tensor "
                "parallelism want them (default: 1)", type=int, metavar="N"),
        _option("--groups-multiple-of", "the same of the head groups that stay (default: 1)", type=int, metavar="N"),
        _option("--keep-head-groups", "head groups that stay in each layer: one number, or one per layer, as 4,3,2",
                type=counts, metavar="N"),
        _option("--keep-heads-per-group", "query heads that stay in each kept group (default: all)",
                type=int, metavar="N"),
        _option("--keep-channels", "MLP channels that stay in each layer: one number, or one per layer",
                type=counts, metavar="N"),
        _option("--keep-query-key-dim", "dimensions that the queries and keys of every head keep, an even number as "
                "RoPE turns pairs; alone, or beside shares or counts", type=int, metavar="N"),
        _option("--keep-value-dim", "dimensions that the values of every head keep; only this project loads such heads "
                "compact, see --layers", type=int, metavar="N"),
        _option("--keep-layers", "decoder layers that stay, those that change the residual stream most; alone, or "
                "beside shares or counts (default: all)", type=int, metavar="N"),
        _option("--allocation", "how the removal is shared among layers; uniform: the same in each; global: "
                "more where less is lost, half the count at least; flap: as many parameters, heads and channels under "
                f"one threshold (default: {ALLOCATION})",
                choices=ALLOCATIONS),
        _option("--widths", "uniform: channels are shared out as --allocation says; free: as many in all, where they "
                "are missed least after a refit, found by running the model; layers then differ, see --layers "
                "(default: uniform)", choices=WIDTHS),
        _option("--locks", 'units kept or removed whatever their score: JSON with [layer, index] pairs, as '
                '{"keep_head_groups": [[0, 2]], "remove_channels": [[1, 7], [1, 9]]}', type=Path, metavar="FILE"),
    ),
)  # fmt: skip
COMPRESSION = Group(
    "size and time",
    "What is cut, how it is shared out, refitted and taught follows from these two, or from an earlier run.",
    (
        _option("--size", "share of all parameters that stays, above 0 and below 1", type=float, metavar="SHARE"),
        _option("--minutes", "the time there is; more gives a better model (default: %(default)s)",
                type=float, metavar="N", default=10.0),
        _option("--widths", "free: each layer keeps as many channels as suits it, see --layers; uniform: all layers "
                "as many, which every loader takes (default: %(default)s)", choices=WIDTHS, default="free"),
        _option("--repeat", "in place of a size and a time: do again what an earlier run did on the same text, for as "
                "long as it takes; its answer and the card of its result say what to give", metavar="RECORD"),
    ),
)  # fmt: skip
SCORES_FILE = Group(
    "scores",
    "Either scores that were written before, or calibration text to score on.",
    (_option("--scores", "what the score command wrote; no weights are read", type=Path, metavar="FILE"),),
)

PLAN_FILE = Group(
    "plan",
    "Either a plan file, or calibration text and what to remove.",
    (_option("--plan", "a plan.json: of the plan command, the app or a checkpoint", type=Path, metavar="FILE"),),
)

REPAIR = Group(
    "repair",
    None,
    (
        _option("--compensation", "how what stays makes up for what goes; needs the calibration text (default: "
                "%(default)s)", choices=COMPENSATIONS, default="none"),
    ),
)  # fmt: skip

PUSHING = Group(
    "checkpoint and repository",
    None,
    (
        _option("folder", "a folder that prune, recover or export wrote", type=Path, metavar="FOLDER"),
        _option("--repo", "its name on the hub, as small-model or owner/small-model", required=True, metavar="NAME"),
        _option("--public", "let everybody see it, if it is new", action="store_true"),
        _option("--overwrite", "replace what is in the repository already; its history keeps it", action="store_true"),
    ),
)

LAYERS = _option(
    "--layers",
    "how a checkpoint holds sizes that stock configurations cannot name, such as layers that differ. padded: with "
    "zeros, for stock transformers; compact: each as it is, which only this project loads today, so without the proof "
    "(default: %(default)s)",
    choices=LAYERS_OF_A_CHECKPOINT,
    default=LAYERS_OF_A_CHECKPOINT[0],
)
NO_PROOF = _option(
    "--no-proof",
    "keep a checkpoint without the proof that a fresh process, with transformers alone, computes the same from it",
    action="store_true",
)

TELLING = (
    _option("--json", "print JSON, in full precision, instead of tables", action="store_true"),
    _option("--quiet", "draw no progress bars", action="store_true"),
)

REFERENCE = Group(
    "reference",
    None,
    (
        _option("--reference", "a model to compare with, usually the one it was cut from", metavar="MODEL"),
        _option("--reference-revision", "commit, branch or tag of the reference", metavar="REVISION"),
    ),
)

TASKS = Group(
    "tasks",
    "Those of lm_eval, which is installed apart (pip install lm_eval); their data come from the hub.",
    (
        _option("--tasks", "tasks, groups or tags, as arc_easy,hellaswag; `lm_eval ls tasks` lists them",
                type=names, metavar="NAMES", required=True),
        _option("--limit", "only the first N documents of each task (default: all)", type=int, metavar="N"),
        _option("--num-fewshot", "examples in the prompt (default: what each task says)", type=int, metavar="N"),
        _option("--batch-size", "requests of one forward pass (default: %(default)s)",
                type=int, default=8, metavar="N"),
        _option("--include-path", "a folder with task files (.yaml) of your own; Python that they name is run",
                type=Path, metavar="DIR"),
    ),
)  # fmt: skip
