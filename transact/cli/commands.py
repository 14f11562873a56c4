"""The commands: each calls the library as the app does, and returns values and text."""

import json
import shlex
from argparse import Namespace
from dataclasses import asdict, dataclass, replace

import transact as ta
from transact.cli import options, steps, summaries
from transact.cli.bars import Meter, alone
from transact.cli.files import check_free, write_new
from transact.cli.recovery_options import settings_of
from transact.cli.steps import Chosen
from transact.observing.statistics import CalibrationRecord
from transact.progress import NO_PROGRESS
from transact.runtime.distributed import is_main
from transact.text.tokens import TokenSet
from transact.wording import with_memory


@dataclass(frozen=True)
class Answer:
    """A result as `values` for programs (JSON-able) and as `parts` of text, printed with an empty line in between."""

    values: dict
    parts: tuple[str, ...]

    def with_notes(self, notes: tuple[str, ...]) -> "Answer":
        """The same, followed by the notes on the texts."""
        return Answer(self.values | {"notes": notes}, (*self.parts, *notes)) if notes else self


def score(arguments: Namespace, meter: Meter) -> Answer:
    """Scores of every head, head group and channel, printed in short and written in full."""
    sources = steps.read_sources(arguments)
    if arguments.output is not None:
        check_free(arguments.output)
    steps.join_processes(arguments.device)
    loaded = steps.load_or_stream(arguments, meter, arguments.model, arguments.revision)
    assert sources.calibration is not None, "the command asks for it"
    calibration = steps.calibration_set(arguments, loaded, sources.calibration)
    scores = steps.score(
        arguments, loaded, steps.observe(arguments, loaded, calibration, meter, metric=steps.metric(arguments))
    )
    values = {"model": _model(loaded), **scores.to_dict(), "calibration": _record(calibration)}
    heading = f"{loaded.source}, {scores.metric} on {summaries.tokens(calibration)}; {calibration.protocol}"
    answer = Answer(values, (heading, summaries.score_table(scores))).with_notes(steps.notes(sources, calibration))
    if arguments.output is None or not is_main():
        return answer
    write_new(arguments.output, json.dumps(answer.values))
    return replace(answer, parts=(*answer.parts, f"All scores are in {arguments.output}."))


def plan(arguments: Namespace, meter: Meter) -> Answer:
    """A plan in a file of its own, and what it would save."""
    sources = steps.read_sources(arguments)
    check_free(arguments.output)
    if sources.scores is None:
        loaded = steps.load(arguments, meter, arguments.model, arguments.revision)
        chosen = steps.choose(arguments, loaded, sources, meter)
    else:
        loaded = steps.open_in_files(arguments, meter, arguments.model, arguments.revision)
        chosen = steps.chosen_by_scores(arguments, loaded, sources)
    return _plan_written(arguments, loaded, chosen).with_notes(steps.notes(sources, chosen.calibration))


def prune(arguments: Namespace, meter: Meter) -> Answer:
    """The plan as smaller weights: saved, measured against the dense model, or both."""
    sources = steps.read_sources(arguments)
    if arguments.output is not None:
        check_free(arguments.output, folder=True)
    loaded = steps.load_or_stream(arguments, meter, arguments.model, arguments.revision)
    if isinstance(loaded, ta.StreamedModel):
        return _prune_streamed(arguments, loaded, sources, meter)
    # tokenised now, though needed last: unusable text is refused before the work
    evaluation = None if sources.evaluation is None else steps.evaluation_set(arguments, loaded, sources.evaluation)
    chosen = steps.choose(arguments, loaded, sources, meter, compensation=arguments.compensation)
    pruned, answer = _cut(arguments, loaded, chosen, meter)
    return _measured_too(arguments, _Beside(loaded, chosen.calibration, evaluation, sources), pruned, answer, meter)


@dataclass(frozen=True)
class _Beside:
    """What a result is measured beside and on."""

    dense: ta.LoadedModel
    calibration: ta.CalibrationSet | None
    evaluation: ta.EvaluationSet | None
    sources: steps.Sources


def _measured_too(
    arguments: Namespace, beside: _Beside, pruned: ta.LoadedModel, answer: Answer, meter: Meter
) -> Answer:
    """The answer with the result's measurement, where an evaluation text was named."""
    calibration, evaluation = beside.calibration, beside.evaluation
    notes = steps.notes(beside.sources, calibration, evaluation)
    if evaluation is None:
        return answer.with_notes(notes)
    report = steps.evaluate(arguments, pruned, beside.dense, evaluation, meter)
    overlap = None if calibration is None else evaluation.overlap(calibration)
    measured = {"evaluation": {**_record(evaluation), "overlap": overlap}, "report": report.to_dict()}
    warning = (summaries.overlap(overlap),) if overlap else ()
    parts = (*answer.parts, *summaries.measured(report, evaluation), *warning)
    return Answer(answer.values | measured, parts).with_notes(notes)


def compress(arguments: Namespace, meter: Meter) -> Answer:
    """As good a model of a size as the minutes allow: saved, measured against the dense model, or both."""
    sources = steps.read_sources(arguments)
    if arguments.output is not None:
        check_free(arguments.output, folder=True)
    loaded = steps.load(arguments, meter, arguments.model, arguments.revision)
    evaluation = None if sources.evaluation is None else steps.evaluation_set(arguments, loaded, sources.evaluation)
    assert sources.calibration is not None, "the command asks for it"
    calibration = steps.calibration_set(arguments, loaded, sources.calibration)
    recipes: list[ta.Recipe] = []
    pruned = ta.compress(
        loaded,
        calibration,
        size=arguments.size,
        minutes=arguments.minutes,
        widths=arguments.widths,
        repeat=arguments.repeat,
        report=recipes.append,
        progress=meter("Compressing"),
    )
    cut = pruned.cuts[-1]
    values = {
        **_planned(loaded, Chosen(cut.plan, calibration, None)),
        "compensation": cut.compensation,
        "trained": cut.trained,
        "repeat": cut.repeat,
        "recipe": recipes[-1].seconds,
    }
    how = (f"Expected: {recipes[-1].words}.", *([f"Trained: {cut.trained}."] if cut.trained else []))
    how = (*how, f"The same again: --repeat {shlex.quote(cut.repeat)}.")
    parts = (*summaries.plan(loaded.source, cut.plan, cut.compensation), *how)
    answer = Answer(values, parts)
    if arguments.output is not None:
        saved = steps.save(arguments, pruned, meter)
        answer = Answer({**values, "saved": asdict(saved)}, (*parts, summaries.saved(saved)))
    return _measured_too(arguments, _Beside(loaded, calibration, evaluation, sources), pruned, answer, meter)


_STREAMED = (
    "The model was streamed: one layer at a time was in memory. The result is not proved, as that would load all of it."
)


def _prune_streamed(arguments: Namespace, loaded: ta.StreamedModel, sources: steps.Sources, meter: Meter) -> Answer:
    """The same layer by layer, the measurement too."""
    if arguments.output is None:
        raise ta.InvalidOption(
            f"{loaded.source} is streamed, so that the result is in files alone. Give --output, or --stream never "
            "where the model fits into memory."
        )
    if arguments.prompt is not None:
        raise ta.InvalidOption(
            f"{loaded.source} is streamed and cannot write. Leave out --prompt, or give --stream never where the model "
            "fits into memory."
        )
    evaluation = None if sources.evaluation is None else steps.evaluation_set(arguments, loaded, sources.evaluation)
    chosen = steps.choose(arguments, loaded, sources, meter, compensation=arguments.compensation)
    saved = ta.stream_prune(
        loaded,
        chosen.plan,
        arguments.output,
        compensation=arguments.compensation,
        statistics=chosen.statistics,
        layers=arguments.layers,
        progress=meter("Cutting"),
    )
    values = {
        **_planned(loaded, chosen),
        "compensation": arguments.compensation,
        "saved": asdict(saved),
        "streamed": True,
    }
    parts = (*summaries.plan(loaded.source, chosen.plan, arguments.compensation), summaries.saved(saved), _STREAMED)
    notes = steps.notes(sources, chosen.calibration, evaluation)
    if evaluation is None:
        return Answer(values, parts).with_notes(notes)
    pruned = steps.load_or_stream(arguments, meter, str(arguments.output), None)
    report = steps.evaluate(arguments, pruned, loaded, evaluation, meter)
    measured = {"evaluation": _record(evaluation), "report": report.to_dict()}
    return Answer(values | measured, (*parts, *summaries.measured(report, evaluation))).with_notes(notes)


def recover(arguments: Namespace, meter: Meter) -> Answer:
    """Shots with training in between, in one process or in all that `accelerate launch` started."""
    settings = settings_of(arguments)
    sources = steps.read_sources(arguments)
    check_free(arguments.output, folder=True)
    steps.join_processes(arguments.device)
    loaded = steps.load(arguments, meter, arguments.model, arguments.revision)
    evaluation = None if sources.evaluation is None else steps.evaluation_set(arguments, loaded, sources.evaluation)
    assert sources.calibration is not None, "the command asks for it"
    calibration = steps.calibration_set(arguments, loaded, sources.calibration)
    training = steps.training_text(arguments, loaded, sources.training, meter)
    recovered = ta.recover(
        loaded,
        calibration,
        steps.target_of(arguments, loaded.spec),
        settings,
        training=training,
        evaluation=evaluation,
        locks=sources.locks,
        directory=arguments.checkpoints,
        progress=meter("Recovering"),
    )
    saved = steps.save(arguments, recovered.pruned, meter) if is_main() else None
    values = {
        "model": _model(loaded),
        "calibration": _record(calibration),
        "settings": settings.to_dict(),
        "plan": recovered.plan.summary(),
        "points": [asdict(point) for point in recovered.points],
        "saved": None if saved is None else asdict(saved),
    }
    parts = (*summaries.plan(loaded.source, recovered.plan), summaries.recovery(recovered.points))
    result = Answer(values, parts if saved is None else (*parts, summaries.saved(saved)))
    return result.with_notes(steps.notes(sources, calibration, evaluation))


def evaluate(arguments: Namespace, meter: Meter) -> Answer:
    """What a model does on a text, and how it differs from a reference."""
    sources = steps.read_sources(arguments)
    assert sources.evaluation is not None, "the command asks for it"
    loaded = steps.load_or_stream(arguments, meter, arguments.model, arguments.revision)
    evaluation = steps.evaluation_set(arguments, loaded, sources.evaluation)
    reference = None
    if arguments.reference is not None:
        reference = steps.load_or_stream(arguments, meter, arguments.reference, arguments.reference_revision)
    report = steps.evaluate(arguments, loaded, reference, evaluation, meter)
    values = {
        "model": _model(loaded),
        "reference": None if reference is None else _model(reference),
        "evaluation": _record(evaluation),
        "report": report.to_dict(),
    }
    heading = loaded.source if reference is None else f"{loaded.source} beside {reference.source}"
    answer = Answer(values, (heading, *summaries.measured(report, evaluation)))
    return answer.with_notes(steps.notes(sources, evaluation))


def tasks(arguments: Namespace, meter: Meter) -> Answer:
    """Standard tasks on a model, and on a reference beside it."""
    with alone(NO_PROGRESS):
        ta.check_tasks(arguments.tasks, include_path=arguments.include_path)
    models = {"model": steps.load(arguments, meter, arguments.model, arguments.revision)}
    if arguments.reference is not None:
        models = {"reference": steps.load(arguments, meter, arguments.reference, arguments.reference_revision)} | models
    with alone(meter("Running")) as progress:
        results = ta.evaluate_tasks(
            models,
            arguments.tasks,
            limit=arguments.limit,
            num_fewshot=arguments.num_fewshot,
            batch_size=arguments.batch_size,
            include_path=arguments.include_path,
            progress=progress,
        )
    values = {**{name: _model(loaded) for name, loaded in models.items()}, "results": results.to_dict()}
    heading = " beside ".join(loaded.source for loaded in reversed(models.values()))
    return Answer(values, (heading, *summaries.tasks(results)))


def export(arguments: Namespace, meter: Meter) -> Answer:
    """A planned model, written in the requested form."""
    sources = steps.read_sources(arguments)
    check_free(arguments.output, folder=arguments.kind == "checkpoint")
    loaded = steps.load(arguments, meter, arguments.model, arguments.revision)
    chosen = steps.choose(arguments, loaded, sources, meter, compensation=arguments.compensation)
    answer = (
        _plan_written(arguments, loaded, chosen)
        if arguments.kind == "plan"
        else _cut(arguments, loaded, chosen, meter)[1]
    )
    return answer.with_notes(steps.notes(sources, chosen.calibration))


def push(arguments: Namespace, meter: Meter) -> Answer:
    """A saved checkpoint on the hub."""
    pushed = ta.push(
        arguments.folder,
        arguments.repo,
        private=not arguments.public,
        overwrite=arguments.overwrite,
        progress=meter("Pushing"),
    )
    return Answer(asdict(pushed), (f"The model is at {pushed.url} ({'private' if pushed.private else 'public'}).",))


def _plan_written(arguments: Namespace, loaded: ta.LoadedModel, chosen: Chosen) -> Answer:
    write_new(arguments.output, chosen.plan.to_json())
    parts = (*summaries.plan(loaded.source, chosen.plan), f"The plan is in {arguments.output}.")
    return Answer({**_planned(loaded, chosen), "output": str(arguments.output)}, parts)


def _cut(arguments: Namespace, loaded: ta.LoadedModel, chosen: Chosen, meter: Meter) -> tuple[ta.LoadedModel, Answer]:
    """The pruned model, saved where an output was named."""
    title = "Cutting"
    peak_bytes = ta.REPAIRS[arguments.compensation].peak_bytes
    if peak_bytes is not None and chosen.calibration is not None:
        title = with_memory(title, peak_bytes(chosen.plan, chosen.calibration, loaded.dtype.itemsize))
    pruned = ta.prune(
        loaded,
        chosen.plan,
        compensation=arguments.compensation,
        statistics=chosen.statistics,
        progress=meter(title),
    )
    values = {**_planned(loaded, chosen), "compensation": arguments.compensation}
    parts = summaries.plan(loaded.source, chosen.plan, arguments.compensation)
    if arguments.output is None:
        return pruned, Answer(values, parts)
    if vars(arguments).get("kind") == "gguf":
        file_type = arguments.file_type or options.GGUF_TYPE
        written = ta.save_gguf(pruned, arguments.output, file_type=file_type, progress=meter("Writing"))
        return pruned, Answer({**values, "saved": asdict(written)}, (*parts, summaries.saved_gguf(written)))
    saved = steps.save(arguments, pruned, meter)
    return pruned, Answer({**values, "saved": asdict(saved)}, (*parts, summaries.saved(saved)))


def _planned(loaded: ta.LoadedModel, chosen: Chosen) -> dict:
    made = chosen.plan
    names = ("digest", "metric", "calibration", "allocation")
    return {
        "model": _model(loaded),
        "calibration": None if chosen.calibration is None else _record(chosen.calibration),
        "plan": {**{name: getattr(made, name) for name in names}, **made.summary()},
    }


def _model(loaded: ta.LoadedModel) -> dict:
    dtype = str(loaded.dtype).removeprefix("torch.")
    return {"source": loaded.source, "revision": loaded.revision, "dtype": dtype, "device": str(loaded.device)}


def _record(tokens: TokenSet) -> dict:
    return asdict(CalibrationRecord.of(tokens))
