"""The shell lines that do what the page shows; they come to the same numbers as the Python lines."""

import json
import shlex

import transact as ta
from transact.planning.search import METRIC as SEARCH
from ui.state.plan_of_choice import counts_of
from ui.state.session import Goal, Training
from ui.text_sources.text_source import TextSource
from ui.views.python_code import CALIBRATION_FILE, EVALUATION_FILE, NO_LOCKS, OUTPUT_FOLDER, Recipe, is_own
from ui.work.recovery import SEQUENCES
from ui.work.streamed import SEQUENCES as STREAMED_SEQUENCES

LOCKS_FILE = "locks.json"
_BUNDLED = {"sample": "", "evaluation": "evaluation_"}


def commands(recipe: Recipe) -> str:
    """One command from loading to saving, before it what it reads; a word on why not for a model without weights."""
    if not recipe.key.has_weights:
        return "# a plan from the gallery's scores is made in Python; a shell needs the weights\n"
    sampling, choice, training = recipe.sampling, recipe.choice, recipe.training
    options = [
        f"--model {shlex.quote(recipe.key.source)}",
        *([f"--revision {shlex.quote(recipe.key.revision)}"] if recipe.key.revision else []),
        *([f"--dtype {recipe.key.dtype}"] if recipe.key.dtype != "auto" else []),
        *(["--stream"] if recipe.streamed else []),
        f"--calibration {_file(recipe.text, CALIBRATION_FILE)}{' --chat' if recipe.text.is_chat else ''}",
        f"--num-samples {sampling.num_samples} --seq-len {sampling.seq_len} --seed {sampling.seed}",
        *([f"--held-out {sampling.held_out!r}"] if sampling.held_out else []),
        *([_goal(recipe.goal)] if recipe.goal else [f"--metric {_metric(recipe)} {_target(recipe)}"]),
        *([f"--allocation {recipe.allocation}"] if recipe.allocation and not training and not recipe.goal else []),
        *([f"--locks {LOCKS_FILE}"] if choice.locks != NO_LOCKS else []),
        *([f"--compensation {recipe.repair}"] if recipe.repair != "none" and not recipe.goal else []),
        *_evaluation(recipe),
        *([f"--evaluation-samples {STREAMED_SEQUENCES}"] if recipe.measured_on and recipe.streamed else []),
        *(_training(training) if training else []),
        f"--output {OUTPUT_FOLDER}",
    ]
    joined = " \\\n    ".join(options)
    command = "compress" if recipe.goal else "recover" if training else "prune"
    return f"{_preparation(recipe)}python -m transact {command} \\\n    {joined}\n"


def _metric(recipe: Recipe) -> str:
    return SEARCH if recipe.searched else recipe.plan.metric


def _evaluation(recipe: Recipe) -> list[str]:
    """What is measured on, where that is not what was held out, and the most tokens of it."""
    source = recipe.measured_on
    named = [] if source is None or source.held_out else [f"--evaluation {_file(source, EVALUATION_FILE)}"]
    return [*named, *([f"--evaluation-tokens {recipe.most_tokens}"] if recipe.most_tokens else [])]


def _goal(goal: Goal) -> str:
    return f"--repeat {shlex.quote(goal.repeat)}"


def _training(training: Training) -> list[str]:
    """What is not the default; metric, repair and seed stand elsewhere."""
    defaults, said = ta.RecoverySettings().to_dict(), ("metric", "compensation", "seed")
    changed = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in training.settings.to_dict().items()
        if value != defaults[name] and name not in said
    ]
    own = [f"--own-text {training.own_samples}"] if training.own_samples else []
    return [" ".join(changed), " ".join([f"--evaluation-samples {SEQUENCES}", *own])]


def _preparation(recipe: Recipe) -> str:
    lines = []
    if any(is_own(text) for text in (recipe.text, recipe.measured_on) if text is not None):
        lines.append("# the texts are in the archive that “Download the texts used” gives")
    if recipe.longest:
        lines.append(f"# scoring was stopped after the longest {recipe.longest} sequences; this reads all of them")
    if recipe.choice.locks != NO_LOCKS:
        filled = {name: pairs for name, pairs in recipe.choice.locks.to_dict().items() if pairs}
        lines.append(f"echo {shlex.quote(json.dumps(filled))} > {LOCKS_FILE}")
    return "".join(f"{line}\n" for line in lines)


def _file(source: TextSource, name: str) -> str:
    if source.origin in _BUNDLED:
        return f"assets/samples/{_BUNDLED[source.origin]}{source.name}.jsonl"
    return name.replace(".jsonl", ".txt") if source.is_document else name


def _target(recipe: Recipe) -> str:
    requested = dict(recipe.plan.requested)
    multiples = {name.replace("_", "-"): int(requested[name]) for name in ta.MULTIPLES if name in requested}
    rounded = "".join(f" --{option} {value}" for option, value in multiples.items())
    if "attention_sparsity" in requested:
        cut_by = recipe.plan.granularity
        inside = "" if cut_by == ta.GRANULARITIES[0] else f" --granularity {cut_by}"
        shares = (requested[name] for name in ("attention_sparsity", "mlp_sparsity"))
        return "--attention-sparsity {!r} --mlp-sparsity {!r}".format(*shares) + inside + rounded
    if "parameters" in requested:
        return f"--parameters {int(requested['parameters'])}{rounded}"
    counts = counts_of(recipe.plan)
    kept = f"--keep-head-groups {_counts(counts.keep_head_groups)} --keep-channels {_counts(counts.keep_channels)}"
    inside = {name.replace("_", "-"): getattr(counts, name) for name in ta.INSIDE_HEADS}
    return " ".join([kept, *(f"--{option} {count}" for option, count in inside.items() if count is not None)])


def _counts(counts: tuple[int, ...]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else ",".join(map(str, counts))
