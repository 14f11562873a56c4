"""Steps that commands share: from options and files to the library's values.

Everything that can be refused is refused before the text is run through the model.
"""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

import transact as ta
from transact.cli import options
from transact.cli.bars import Meter
from transact.cli.files import Text, read_locks, read_plan, read_scores, read_text
from transact.models.stock_config import check_writable
from transact.models.tasks_by_placement import SEARCH as SEARCH_TASK
from transact.runtime.distributed import rank_and_count
from transact.text.text_tables import TEXT
from transact.text.tokens import TokenSet
from transact.wording import with_memory


@dataclass(frozen=True)
class Sources:
    """The files that were read before a model is loaded; None for those not named."""

    calibration: Text | None
    evaluation: Text | None
    training: Text | None
    plan: ta.PruningPlan | None
    scores: dict | None
    locks: ta.Locks | None

    @property
    def texts(self) -> tuple[Text, ...]:
        return tuple(text for text in (self.calibration, self.evaluation, self.training) if text is not None)


@dataclass(frozen=True)
class Chosen:
    """A plan, the calibration text where there is one, and what was observed on it where that was needed."""

    plan: ta.PruningPlan
    calibration: ta.CalibrationSet | None
    statistics: ta.ActivationStatistics | None


def read_sources(arguments: Namespace) -> Sources:
    """The files that the command takes and that were named."""

    def read(name: str, reader: Callable):
        path = vars(arguments).get(name)
        return None if path is None else reader(path)

    text = partial(read_text, column=arguments.column, chat=arguments.chat)
    sources = Sources(
        calibration=read("calibration", text),
        evaluation=read("evaluation", text),
        training=read("training", text),
        plan=read("plan", read_plan),
        scores=read("scores", read_scores),
        locks=read("locks", read_locks),
    )
    share = vars(arguments).get("held_out")
    if share is not None and sources.calibration is not None:
        kept, held = sources.calibration.hold_out(share)
        sources = replace(sources, calibration=kept, evaluation=sources.evaluation or held)
    if arguments.chat and not any(text.is_chat for text in sources.texts):
        raise ta.InvalidText('--chat was given, but no file has conversations under "messages". Leave --chat out.')
    return sources


def notes(sources: Sources, *token_sets: TokenSet | None) -> tuple[str, ...]:
    """Notes on the files and on the sets made from them."""
    of_sets = (f"{tokens.name}: {note}" for tokens in token_sets if tokens is not None for note in tokens.notes)
    return (*(note for text in sources.texts for note in text.notes), *of_sets)


def join_processes(device: str) -> None:
    """Become one of several processes where `accelerate launch` (or `torchrun`) started this one as such."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState  # a second to import

        PartialState(cpu=device == "cpu" or not torch.cuda.is_available())


def load(arguments: Namespace, meter: Meter, source: str, revision: str | None) -> ta.LoadedModel:
    progress = meter(f"Loading {source}")
    return ta.load(source, revision=revision, dtype=arguments.dtype, device=arguments.device, progress=progress)


def load_or_stream(arguments: Namespace, meter: Meter, source: str, revision: str | None) -> ta.LoadedModel:
    """A model in memory, or streamed from its files, with --stream or where memory is short."""
    chosen = arguments.stream
    if chosen == "auto":
        fits = ta.preflight(source, dtype=arguments.dtype, revision=revision, device=arguments.device).fits
        chosen = "never" if fits else "always"
    return (load if chosen == "never" else open_in_files)(arguments, meter, source, revision)


def open_in_files(arguments: Namespace, meter: Meter, source: str, revision: str | None) -> ta.StreamedModel:
    """A model whose weights stay in its files."""
    progress = meter(f"Opening {source}")
    return ta.load_streamed(
        source, revision=revision, dtype=arguments.dtype, device=arguments.device, progress=progress
    )


def calibration_set(arguments: Namespace, loaded: ta.LoadedModel, text: Text) -> ta.CalibrationSet:
    length = _length(arguments.seq_len, loaded)
    return text.tokens(
        ta.CalibrationSet,
        loaded,
        bos=arguments.bos,
        num_samples=arguments.num_samples,
        seq_len=length,
        seed=arguments.seed,
    )


def evaluation_set(arguments: Namespace, loaded: ta.LoadedModel, text: Text) -> ta.EvaluationSet:
    tokens = text.tokens(
        ta.EvaluationSet, loaded, bos=arguments.bos, seq_len=_length(arguments.evaluation_seq_len, loaded)
    )
    if arguments.evaluation_samples is not None:
        tokens = tokens.first(arguments.evaluation_samples)
    return tokens if arguments.evaluation_tokens is None else tokens.up_to(arguments.evaluation_tokens)


def training_text(
    arguments: Namespace, loaded: ta.LoadedModel, text: Text | None, meter: Meter
) -> ta.CalibrationSet | ta.StreamedText | None:
    """The training text that the options name; None for the calibration text."""
    length = _length(arguments.seq_len, loaded)
    if arguments.dataset is not None:
        streamed = ta.StreamedText.from_hub(
            arguments.dataset, loaded.tokenizer, config=arguments.dataset_config, split=arguments.dataset_split,
            column=arguments.column or TEXT, seq_len=length,
        )  # fmt: skip
        return replace(streamed, bos=arguments.bos)
    sets = []
    if text is not None:
        sets.append(text.tokens(ta.CalibrationSet, loaded, bos=arguments.bos, num_samples=None, seq_len=length))
    if arguments.own_text is not None:
        progress = meter("Writing")
        sets.append(
            ta.CalibrationSet.from_model(
                loaded, num_samples=arguments.own_text, seq_len=length, seed=arguments.seed, progress=progress
            )
        )
    if len(sets) < 2:
        return sets[0] if sets else None
    rows = [row for each in sets for row in each.rows()]
    return ta.CalibrationSet.from_sequences(rows, name=" and ".join(each.name for each in sets), seed=arguments.seed)


def choose(
    arguments: Namespace, loaded: ta.LoadedModel, sources: Sources, meter: Meter, *, compensation: str = "none"
) -> Chosen:
    """The plan of the file, or one made as the options say, with statistics that the repair can work from."""
    calibration = None if sources.calibration is None else calibration_set(arguments, loaded, sources.calibration)
    if sources.plan is not None:
        sources.plan.check_fits(loaded.fingerprint)
        check_writable(loaded, sources.plan.spec, sources.plan.kept_layers)
        statistics = None
        if compensation != "none":
            assert calibration is not None, "the options ask for it"
            statistics = observe(arguments, loaded, calibration, meter, gram=_grams(compensation, loaded))
        return Chosen(sources.plan, calibration, statistics)
    assert calibration is not None, "the options ask for it where no plan is given"
    searched = arguments.metric == options.SEARCH
    if searched and isinstance(loaded, ta.StreamedModel):
        raise ta.InvalidOption(
            f"--metric {options.SEARCH} runs the whole model again and again, and this one is streamed. Choose another "
            "metric, or --stream never where it fits into memory."
        )
    make_plan = _planner(arguments, loaded, sources)
    target = make_plan.keywords["target"]
    # a target that is impossible, or that no file can hold, is refused here
    check_writable(loaded, make_plan(ta.ImportanceScores.random(loaded.spec)).spec)
    gram, queries = _grams(compensation, loaded), target.keep_query_key_dim is not None
    if arguments.widths == "free":
        loaded.check_can(SEARCH_TASK)
        gram = ta.grams_for_repair(loaded.spec)
    if searched:
        statistics = observe(arguments, loaded, calibration, meter, gram=gram or "attention", queries=queries)
        target = _with_widths(arguments, loaded, sources, statistics, target, meter)
        needed = ta.search_bytes(loaded.spec, target, calibration, loaded.dtype.itemsize)
        progress = meter(with_memory("Searching", needed))
        plan = ta.search_plan(loaded, statistics, target, locks=sources.locks, progress=progress)
        return Chosen(plan, calibration, statistics)
    statistics = observe(arguments, loaded, calibration, meter, gram=gram, metric=metric(arguments), queries=queries)
    target = _with_widths(arguments, loaded, sources, statistics, target, meter)
    return Chosen(make_plan(score(arguments, loaded, statistics), target=target), calibration, statistics)


def _with_widths(
    arguments: Namespace,
    loaded: ta.LoadedModel,
    sources: Sources,
    statistics: ta.ActivationStatistics,
    target: ta.PruningTarget,
    meter: Meter,
) -> ta.PruningTarget:
    """The target, its channels shared out among the layers where --widths free asks for it."""
    if arguments.widths != "free":
        return target
    assert statistics.tokens is not None, "observed just now"
    needed = ta.widths_bytes(loaded.spec, statistics.tokens, loaded.dtype.itemsize)
    progress = meter(with_memory("Searching widths", needed))
    return ta.search_widths(loaded, statistics, target, locks=sources.locks, progress=progress)


def chosen_by_scores(arguments: Namespace, loaded: ta.LoadedModel, sources: Sources) -> Chosen:
    """The plan that scores of a file give; raises `InvalidPlan` where they are another model's."""
    assert sources.scores is not None, "called only where a file of scores is given"
    scores = ta.ImportanceScores.from_dict(sources.scores, loaded.spec)
    if scores.fingerprint not in (loaded.fingerprint, loaded.spec.fingerprint):
        raise ta.InvalidPlan(
            f"The scores of {arguments.scores} were made for a model of the same shapes but other weights than "
            f"{loaded.source}. Score this model."
        )
    return Chosen(_planner(arguments, loaded, sources)(scores), None, None)


def _planner(arguments: Namespace, loaded: ta.LoadedModel, sources: Sources) -> partial:
    """`make_plan` with the arguments from the options, all but the scores."""
    return partial(
        ta.make_plan,
        spec=loaded.spec,
        target=target_of(arguments, loaded.spec),
        allocation=arguments.allocation or options.ALLOCATION,
        locks=sources.locks,
    )


def observe(
    arguments: Namespace,
    loaded: ta.LoadedModel,
    calibration: ta.CalibrationSet,
    meter: Meter,
    *,
    gram: bool | str = False,
    metric: str = options.METRIC,
    queries: bool = False,
) -> ta.ActivationStatistics:
    """Statistics for that metric, with `gram` also for a repair, with `queries` for a cut inside queries and keys."""
    taylor = ta.METRICS[metric].needs_gradients
    if isinstance(loaded, ta.StreamedModel):
        if queries:
            raise ta.InvalidOption(
                "--keep-query-key-dim is not for a streamed model. Plan whole heads, or give --stream never where the "
                "model fits into memory."
            )
        if taylor:
            raise ta.InvalidOption(
                f"--metric {metric} takes gradients through the whole model at once, and this one is streamed. Choose "
                "another metric, or --stream never where it fits into memory."
            )
        return ta.stream_observe(
            loaded,
            calibration,
            gram=gram and "by_layer",
            savepoint=_savepoint(arguments.output),
            progress=meter("Scoring"),
        )
    return ta.observe(loaded, calibration, gram=gram, taylor=taylor, queries=queries, progress=meter("Scoring"))


def _savepoint(output: Path | None) -> Path | None:
    """Beside the result, from which the same command resumes; none without a name, and none for several processes."""
    alone = rank_and_count()[1] == 1
    return output.with_name(f".{output.name}.scoring.partial") if alone and output is not None else None


def _grams(compensation: str, loaded: ta.LoadedModel) -> bool | str:
    return ta.REPAIRS[compensation].gram_option(loaded.spec)


def metric(arguments: Namespace) -> str:
    return arguments.metric or options.METRIC


def score(arguments: Namespace, loaded: ta.LoadedModel, statistics: ta.ActivationStatistics) -> ta.ImportanceScores:
    return ta.score(loaded, statistics, metric=metric(arguments), seed=arguments.seed)


def evaluate(
    arguments: Namespace,
    loaded: ta.LoadedModel,
    reference: ta.LoadedModel | None,
    evaluation: ta.EvaluationSet,
    meter: Meter,
) -> ta.EvalReport:
    progress, speed = meter("Measuring"), not arguments.no_speed
    return ta.evaluate(loaded, evaluation, reference=reference, prompt=arguments.prompt, speed=speed, progress=progress)


def save(arguments: Namespace, pruned: ta.LoadedModel, meter: Meter) -> ta.SaveReport:
    """In the dtype of the base's files, and proved unless --no-proof is given."""
    progress = meter("Proving")
    prove = not arguments.no_proof and (arguments.layers == "padded" or pruned.spec.is_stock)
    return ta.save(
        pruned, arguments.output, dtype=pruned.file_dtype, layers=arguments.layers, prove=prove, progress=progress
    )


def _length(requested: int | None, loaded: ta.LoadedModel) -> int:
    return min(options.SEQ_LEN, loaded.context_length) if requested is None else requested


def target_of(arguments: Namespace, spec: ta.ModelSpec) -> ta.PruningTarget:
    names = ("keep_query_key_dim", "keep_value_dim", "keep_layers")
    requested = {name: count for name in names if (count := getattr(arguments, name)) is not None}
    return replace(_of_shares_or_counts(arguments, spec), **requested)


def _of_shares_or_counts(arguments: Namespace, spec: ta.ModelSpec) -> ta.PruningTarget:
    requested = {"multiple_of": arguments.multiple_of, "groups_multiple_of": arguments.groups_multiple_of}
    multiples = {name: value for name, value in requested.items() if value is not None}
    if arguments.parameters is not None:
        return ta.PruningTarget.from_parameters(spec, arguments.parameters, **multiples)
    if arguments.keep_channels is not None:
        return ta.PruningTarget(
            keep_head_groups=arguments.keep_head_groups,
            keep_channels=arguments.keep_channels,
            keep_heads_per_group=arguments.keep_heads_per_group,
        )
    attention, mlp = arguments.attention_sparsity or 0.0, arguments.mlp_sparsity or 0.0
    granularity = arguments.granularity or ta.GRANULARITIES[0]
    return ta.PruningTarget.from_sparsity(spec, attention=attention, mlp=mlp, granularity=granularity, **multiples)
