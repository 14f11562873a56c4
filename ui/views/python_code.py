"""The Python lines that do what the page shows; they run as they stand, in any folder that has the visitor's files."""

from dataclasses import dataclass, replace

import transact as ta
from transact.analysis.gallery_model import SUFFIX
from transact.planning.search import METRIC as SEARCH
from ui.state.measuring_size import size_of
from ui.state.options import HELD_OUT, Goal
from ui.state.plan_of_choice import counts_of
from ui.state.session import Choice, ModelKey, Result, Sampling, Scored, Session, Training
from ui.text_sources import text_source
from ui.text_sources.text_source import EVALUATION_TOKENS, TextSource, field_of
from ui.work import gallery
from ui.work.recovery import SEQUENCES
from ui.work.streamed import SEQUENCES as STREAMED_SEQUENCES

MAX_LITERAL_CHARACTERS = 2_000
CALIBRATION_FILE, EVALUATION_FILE = "calibration.jsonl", "evaluation.jsonl"
OUTPUT_FOLDER = "pruned-model"
NO_LOCKS = ta.Locks()


@dataclass(frozen=True)
class Recipe:
    """Everything a run depends on: model, text, choice, plan, repair, and what it was measured on.

    `streamed`: the model is larger than memory; `longest`: how many samples were read where not all were; `search`:
    what goes is to be searched for; `tokens`: the most that are measured.
    """

    key: ModelKey
    text: TextSource
    sampling: Sampling
    choice: Choice
    plan: ta.PruningPlan
    repair: str = "none"
    measured_on: TextSource | None = None
    training: Training | None = None
    streamed: bool = False
    goal: Goal | None = None
    longest: int | None = None
    search: bool = False
    tokens: int | None = None

    @property
    def searched(self) -> bool:
        """Whether what goes was searched for, or will be at the cut."""
        return self.search or self.plan.metric == SEARCH

    @property
    def most_tokens(self) -> int | None:
        """How many tokens of the evaluation text are read where it may have more."""
        text = self.measured_on
        if text is None or self.tokens is None or self.streamed or _bytes(text) < self.tokens:
            return None
        return self.tokens

    @property
    def allocation(self) -> str:
        """How scores shared the target among the layers; empty where every layer's count is in the target."""
        return "" if self.plan.allocation in ("uniform", "manual") else self.plan.allocation

    @classmethod
    def of_result(cls, result: Result) -> "Recipe":
        scored, recovery = result.scored, result.recovery
        return cls(
            scored.key, scored.text, scored.sampling, result.choice, result.plan, result.repair,
            result.text if recovery is None else recovery.text,
            None if recovery is None else recovery.training,
            scored.streamed,
            result.goal,
            _longest(scored),
            tokens=result.tokens,
        )  # fmt: skip

    @classmethod
    def of_plan(cls, scored: Scored, choice: Choice, plan: ta.PruningPlan) -> "Recipe":
        """The plan alone, cut without a repair."""
        streamed, longest = scored.streamed, _longest(scored)
        return cls(scored.key, scored.text, scored.sampling, choice, plan, streamed=streamed, longest=longest)

    @classmethod
    def of_session(cls, session: Session) -> "Recipe":
        """What pressing Prune would come to; a text of one's own to measure on is known only once it was read."""
        scored, options = session.need_scored(), session.options
        repair = options.repair if ta.REPAIRS[options.repair].streams or not scored.streamed else "none"
        measured_on = scored.held_out if session.measure_on == HELD_OUT else None
        if text_source.is_sample(session.measure_on):
            measured_on = text_source.evaluation_sample(session.measure_on)
        return cls(
            scored.key, scored.text, scored.sampling, session.choice, session.need_plan(), repair, measured_on,
            streamed=scored.streamed, longest=_longest(scored),
            search=options.search and ta.REPAIRS[repair].takes_search,
            tokens=size_of(options.size, scored).tokens,
        )  # fmt: skip


def code(recipe: Recipe) -> str:
    """Runnable Python, from loading to saving; of a model without its weights, from its scores to the plan."""
    if not recipe.key.has_weights:
        return _planned(recipe)
    load, observe = ("load_streamed", "stream_observe") if recipe.streamed else ("load", "observe")
    lines = [*_imports(recipe), "import transact as ta", "", f"loaded = ta.{load}({_load_arguments(recipe.key)})"]
    sampling, planned = recipe.sampling, recipe.training is None and recipe.goal is None
    lines += [
        *_tokens(
            recipe.text, "calibration", "CalibrationSet", CALIBRATION_FILE,
            f"num_samples={sampling.num_samples}, seq_len={sampling.seq_len}, seed={sampling.seed}", sampling.held_out,
        ),
        *([f"calibration = calibration.longest({recipe.longest})"] if recipe.longest else []),
        *([f"statistics = ta.{observe}(loaded, calibration{_observed(recipe)})"] if planned else []),
        *([_scores(recipe.choice.metric, sampling.seed)] if planned and not recipe.searched else []),
        "",
        *([] if recipe.goal else [*_target(recipe.plan), *_locks(recipe.choice.locks)]),
    ]  # fmt: skip
    evaluation = _evaluation(recipe)
    if recipe.goal is not None:
        asked = f"size={recipe.goal.size!r}, minutes={recipe.goal.minutes!r}, widths={recipe.goal.widths!r}"
        lines += [f"# asked for: {asked}; how far that comes depends on the machine, so it is repeated"]
        lines += [f'pruned = ta.compress(loaded, calibration, repeat="{recipe.goal.repeat}")', *evaluation]
    elif recipe.training is not None:
        lines += [*evaluation, *_recovered(recipe)]
    elif recipe.streamed:
        cut = f'ta.stream_prune(loaded, plan, "{OUTPUT_FOLDER}"{_repair(recipe.repair)})'
        lines += [f"plan = {_plan(recipe)}", cut, *evaluation]
        if evaluation:
            lines += [f"evaluation = evaluation.first({STREAMED_SEQUENCES})"]
            lines += [f'pruned = ta.load_streamed("{OUTPUT_FOLDER}"{_dtype(recipe.key)})']
    else:
        lines += [f"plan = {_plan(recipe)}", f"pruned = ta.prune(loaded, plan{_repair(recipe.repair)})", *evaluation]
    if evaluation:
        lines += ["report = ta.evaluate(pruned, evaluation, reference=loaded)"]
    if not recipe.streamed:
        lines += ["", f'ta.save(pruned, "{OUTPUT_FOLDER}", dtype=pruned.file_dtype)']
    return "\n".join(lines) + "\n"


def _longest(scored: Scored) -> int | None:
    return scored.num_samples if scored.is_part else None


def _planned(recipe: Recipe) -> str:
    """The plan from the gallery's file, which is where the app is or else the host's."""
    name = recipe.key.name
    place = f'ta.GALLERY / "{name}{SUFFIX}"' if gallery.is_bundled(name) else repr(f"{name}{SUFFIX}")
    lines = [
        "import transact as ta",
        "",
        f"loaded = ta.GalleryModel.load({place})",
        f'scores = loaded.scores["{recipe.choice.metric}"]',
        "",
        *_target(recipe.plan),
        *_locks(recipe.choice.locks),
        f"plan = {_plan(replace(recipe, search=False))}",  # a search needs weights
        "summary = plan.summary()",
    ]
    return "\n".join(lines) + "\n"


def _evaluation(recipe: Recipe) -> list[str]:
    if recipe.measured_on is None:
        return []
    length = f"seq_len=min({EVALUATION_TOKENS}, loaded.context_length)"
    first = [] if recipe.most_tokens is None else [f"evaluation = evaluation.up_to({recipe.most_tokens})"]
    return ["", *_tokens(recipe.measured_on, "evaluation", "EvaluationSet", EVALUATION_FILE, length), *first]


def _recovered(recipe: Recipe) -> list[str]:
    """Cutting and training, with the evaluation text of which the first sequences tell which weights are best."""
    defaults = ta.RecoverySettings().to_dict()
    changed = {name: value for name, value in recipe.training.settings.to_dict().items() if value != defaults[name]}
    options = ["loaded", "calibration", "target", "settings", "evaluation=few"]
    lines = ["settings = ta.RecoverySettings(", *(f"    {name}={value!r}," for name, value in changed.items()), ")"]
    lines += [f"few = evaluation.first({SEQUENCES})"]
    if recipe.training.own_samples:
        lines += [
            "training = ta.CalibrationSet.from_model(",
            f"    loaded, num_samples={recipe.training.own_samples}, seq_len={recipe.sampling.seq_len}, "
            f"seed={recipe.sampling.seed}",
            ")",
        ]
        options.append("training=training")
    if recipe.choice.locks != NO_LOCKS:
        options.append("locks=locks")
    return ["", *lines, f"pruned = ta.recover({', '.join(options)}).pruned"]


def is_own(source: TextSource) -> bool:
    """Whether the text is the visitor's, so that the shown lines read it from a file that comes with them."""
    return source.origin != "gallery" and not source.is_bundled and not source.held_out


def _imports(recipe: Recipe) -> list[str]:
    sources = [source for source in (recipe.text, recipe.measured_on) if source is not None and not source.held_out]
    files = [source for source in sources if source.dataset is None and not _is_literal(source)]
    streams = any(source.dataset is not None for source in sources)
    standard = [
        *(["import json"] if files else []),
        *(["from itertools import islice"] if streams else []),
        *(["from pathlib import Path"] if any(map(is_own, files)) else []),
    ]
    return [*standard, *([""] if standard else []), *(["import datasets"] if streams else [])]


def _load_arguments(key: ModelKey) -> str:
    quoted = repr(key.source)
    if not {"'", '"'} & set(key.source):  # one that holds quotation marks stays as Python writes it
        quoted = quoted.replace("'", '"')
    arguments = [quoted]
    if key.revision:
        arguments.append(f"revision={key.revision!r}")
    return ", ".join(arguments) + _dtype(key)


def _dtype(key: ModelKey) -> str:
    return "" if key.dtype == "auto" else f', dtype="{key.dtype}"'


def _tokens(
    source: TextSource, variable: str, kind: str, filename: str, settings: str, held_out: float = 0.0
) -> list[str]:
    """The lines that read a text, leave the end of it out for measuring where a share is held out, and tokenise it."""
    if source.held_out:  # there already
        texts = None
    elif source.dataset is not None:
        texts = _streamed(source, variable)
    elif _is_literal(source):
        texts = f"{variable}_texts = {source.values!r}"
    else:
        bundled = {"sample": "", "evaluation": "evaluation_"}
        file = (
            f'Path("{filename}")' if is_own(source) else f'(ta.SAMPLES / "{bundled[source.origin]}{source.name}.jsonl")'
        )
        texts = (
            f'{variable}_texts = [\n    json.loads(line)["{field_of(source)}"]\n'
            f'    for line in {file}.read_text(encoding="utf-8").split("\\n")\n    if line\n]'
        )
    if source.is_document:
        how, given = "from_document", f"{variable}_texts[0]"
    elif source.is_chat:
        how, given = "from_chats", f"{variable}_texts"
    else:
        how, given, settings = "from_texts", f"{variable}_texts", f'{settings}, windows="auto"'
    split = f"{variable}_texts, evaluation_texts = ta.hold_out({variable}_texts, {held_out!r})"
    return [
        *([] if texts is None else [texts]),
        *([split] if held_out else []),
        f"{variable} = ta.{kind}.{how}(\n    {given}, loaded.tokenizer, {settings}, name={source.name!r}\n)",
    ]


def _streamed(source: TextSource, variable: str) -> str:
    """The same rows again: the first that hold text, as many as were read."""
    choice, count = source.dataset, len(source.texts)
    config = "" if choice.config is None else f", {choice.config!r}"
    revision = "" if choice.revision is None else f", revision={choice.revision!r}"
    return (
        f"{variable}_rows = datasets.load_dataset(\n"
        f"    {choice.name!r}{config}, split={choice.split!r}{revision}, streaming=True\n"
        f").select_columns([{choice.column!r}])\n"
        f"{variable}_cells = (row[{choice.column!r}] for row in {variable}_rows)\n"
        f"{variable}_texts = list(\n"
        f"    islice((cell for cell in {variable}_cells if isinstance(cell, str) and cell.strip()), {count})\n"
        ")"
    )


def _target(plan: ta.PruningPlan) -> list[str]:
    requested = dict(plan.requested)
    if "attention_sparsity" in requested:
        shares = f"attention={requested['attention_sparsity']!r}, mlp={requested['mlp_sparsity']!r}"
        shares += "".join(f", {name}={int(requested[name])}" for name in ta.MULTIPLES if name in requested)
        shares += "" if plan.granularity == ta.GRANULARITIES[0] else f', granularity="{plan.granularity}"'
        return [f"target = ta.PruningTarget.from_sparsity(loaded.spec, {shares})"]
    for name, function in (
        ("parameters", "from_parameters"),
        ("memory_bytes", "from_memory"),
        ("kv_bytes_per_token", "from_kv_bytes"),
    ):
        if name in requested:
            limits = ", ".join(f"{limit}={int(value)}" for limit, value in requested.items())
            return [f"target = ta.PruningTarget.{function}(loaded.spec, {limits})"]
    counts = counts_of(plan)
    counted = {name: getattr(counts, name) for name in ta.INSIDE_HEADS}
    inside = "".join(f"    {name}={count},\n" for name, count in counted.items() if count is not None)
    return [
        f"target = ta.PruningTarget(\n    keep_head_groups={counts.keep_head_groups},\n"
        f"    keep_channels={counts.keep_channels},\n{inside})"
    ]


def _locks(locks: ta.Locks) -> list[str]:
    if locks == NO_LOCKS:
        return []
    filled = {name: pairs for name, pairs in locks.to_dict().items() if pairs}
    return ["locks = ta.Locks.from_dict(", f"    {filled!r}", ")"]


def _observed(recipe: Recipe) -> str:
    gradients = not recipe.searched and ta.METRICS[recipe.choice.metric].needs_gradients
    grams = {False: "", True: ", gram=True", "by_layer": ', gram="by_layer"'}
    repair = ta.REPAIRS[recipe.repair]
    needed = repair.gram_option(recipe.plan.dense_spec)
    if needed and recipe.streamed:
        needed = "by_layer"
    queries = "keep_query_key_dim" in recipe.plan.cuts_inside_heads
    return grams[needed] + (", taylor=True" if gradients else "") + (", queries=True" if queries else "")


def _scores(metric: str, seed: int) -> str:
    return f'scores = ta.score(loaded, statistics, metric="{metric}", seed={seed})'


def _plan(recipe: Recipe) -> str:
    locks = ", locks=locks" if recipe.choice.locks != NO_LOCKS else ""
    if recipe.searched:
        return f"ta.search_plan(loaded, statistics, target{locks})"
    allocation = f', allocation="{recipe.allocation}"' if recipe.allocation else ""
    return f"ta.make_plan(scores, loaded.spec, target{allocation}{locks})"


def _repair(name: str) -> str:
    return "" if name == "none" else f', compensation="{name}", statistics=statistics'


def _bytes(source: TextSource) -> int:
    """No fewer than its tokens, as tokenizers merge bytes."""
    return sum(len(text.encode()) + 1 for text in source.texts)


def _is_literal(source: TextSource) -> bool:
    return source.origin in ("pasted", "file") and sum(map(len, source.texts)) <= MAX_LITERAL_CHARACTERS
