"""The commands: each calls the library as the app does, and answers in numbers and in words."""

import json
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
    """The same result twice: `values` for machines (JSON-able), `parts` for people, an empty line between them."""

    values: dict
    parts: tuple[str, ...]

    def with_notes(self, notes: tuple[str, ...]) -> "Answer":
        """The same, with what is to be told of the texts at its end."""
        return Answer(self.values | {"notes": notes}, (*self.parts, *notes)) if notes else self


def score(given: Namespace, meter: Meter) -> Answer:
    """Scores of every head, head group and channel, printed in short and written in full."""
    sources = steps.read_sources(given)
    if given.output is not None:
        check_free(given.output)
    steps.join_processes(given.device)
    loaded = steps.load_or_stream(given, meter, given.model, given.revision)
    assert sources.calibration is not None, "the command asks for it"
    calibration = steps.calibration_set(given, loaded, sources.calibration)
    scores = steps.score(given, loaded, steps.observe(given, loaded, calibration, meter, metric=steps.metric(given)))
    values = {"model": _model(loaded), **scores.to_dict(), "calibration": _record(calibration)}
    heading = f"{loaded.source}, {scores.metric} on {summaries.tokens(calibration)}; {calibration.protocol}"
    answer = Answer(values, (heading, summaries.score_table(scores))).with_notes(steps.notes(sources, calibration))
    if given.output is None or not is_main():
        return answer
    write_new(given.output, json.dumps(answer.values))
    return replace(answer, parts=(*answer.parts, f"All scores are in {given.output}."))


def plan(given: Namespace, meter: Meter) -> Answer:
    """A plan in a file of its own, and what it would save."""
    sources = steps.read_sources(given)
    check_free(given.output)
    if sources.scores is None:
        loaded = steps.load(given, meter, given.model, given.revision)
        chosen = steps.choose(given, loaded, sources, meter)
    else:
        loaded = steps.open_in_files(given, meter, given.model, given.revision)
        chosen = steps.chosen_by_scores(given, loaded, sources)
    return _plan_written(given, loaded, chosen).with_notes(steps.notes(sources, chosen.calibration))


def prune(given: Namespace, meter: Meter) -> Answer:
    """The plan as smaller weights: saved, measured against the dense model, or both."""
    sources = steps.read_sources(given)
    if given.output is not None:
        check_free(given.output, folder=True)
    loaded = steps.load_or_stream(given, meter, given.model, given.revision)
    if isinstance(loaded, ta.StreamedModel):
        return _prune_streamed(given, loaded, sources, meter)
    # tokenised now, though needed last: text that is of no use is refused before the work
    evaluation = None if sources.evaluation is None else steps.evaluation_set(given, loaded, sources.evaluation)
    chosen = steps.choose(given, loaded, sources, meter, compensation=given.compensation)
    pruned, answer = _cut(given, loaded, chosen, meter)
    notes = steps.notes(sources, chosen.calibration, evaluation)
    if evaluation is None:
        return answer.with_notes(notes)
    report = steps.evaluate(given, pruned, loaded, evaluation, meter)
    overlap = None if chosen.calibration is None else evaluation.overlap(chosen.calibration)
    measured = {"evaluation": {**_record(evaluation), "overlap": overlap}, "report": report.to_dict()}
    warning = (summaries.overlap(overlap),) if overlap else ()
    parts = (*answer.parts, *summaries.measured(report, evaluation), *warning)
    return Answer(answer.values | measured, parts).with_notes(notes)


_STREAMED = (
    "The model was streamed: one layer at a time was in memory. The result is not proved, which would hold all of it."
)


def _prune_streamed(given: Namespace, loaded: ta.StreamedModel, sources: steps.Sources, meter: Meter) -> Answer:
    """The same layer by layer, the measuring too."""
    if given.output is None:
        raise ta.InvalidOption(
            f"{loaded.source} is streamed, so that the result is in files alone. Give --output, or --stream never "
            "where the model fits into memory."
        )
    if given.prompt is not None:
        raise ta.InvalidOption(
            f"{loaded.source} is streamed and cannot write. Leave out --prompt, or give --stream never where the model "
            "fits into memory."
        )
    evaluation = None if sources.evaluation is None else steps.evaluation_set(given, loaded, sources.evaluation)
    chosen = steps.choose(given, loaded, sources, meter, compensation=given.compensation)
    saved = ta.stream_prune(
        loaded,
        chosen.plan,
        given.output,
        compensation=given.compensation,
        statistics=chosen.statistics,
        layers=given.layers,
        progress=meter("Cutting"),
    )
    values = {**_planned(loaded, chosen), "compensation": given.compensation, "saved": asdict(saved), "streamed": True}
    parts = (*summaries.plan(loaded.source, chosen.plan, given.compensation), summaries.saved(saved), _STREAMED)
    notes = steps.notes(sources, chosen.calibration, evaluation)
    if evaluation is None:
        return Answer(values, parts).with_notes(notes)
    pruned = steps.load_or_stream(given, meter, str(given.output), None)
    report = steps.evaluate(given, pruned, loaded, evaluation, meter)
    measured = {"evaluation": _record(evaluation), "report": report.to_dict()}
    return Answer(values | measured, (*parts, *summaries.measured(report, evaluation))).with_notes(notes)


def recover(given: Namespace, meter: Meter) -> Answer:
    """Shots with training in between, in one process or in all that `accelerate launch` started."""
    settings = settings_of(given)
    sources = steps.read_sources(given)
    check_free(given.output, folder=True)
    steps.join_processes(given.device)
    loaded = steps.load(given, meter, given.model, given.revision)
    evaluation = None if sources.evaluation is None else steps.evaluation_set(given, loaded, sources.evaluation)
    assert sources.calibration is not None, "the command asks for it"
    calibration = steps.calibration_set(given, loaded, sources.calibration)
    training = steps.training_text(given, loaded, sources.training, meter)
    recovered = ta.recover(
        loaded,
        calibration,
        steps.target_of(given, loaded.spec),
        settings,
        training=training,
        evaluation=evaluation,
        locks=sources.locks,
        directory=given.checkpoints,
        progress=meter("Recovering"),
    )
    saved = steps.save(given, recovered.pruned, meter) if is_main() else None
    values = {
        "model": _model(loaded),
        "calibration": _record(calibration),
        "settings": settings.to_dict(),
        "plan": recovered.plan.summary(),
        "points": [asdict(point) for point in recovered.points],
        "saved": None if saved is None else asdict(saved),
    }
    parts = (*summaries.plan(loaded.source, recovered.plan), summaries.recovery(recovered.points))
    told = Answer(values, parts if saved is None else (*parts, summaries.saved(saved)))
    return told.with_notes(steps.notes(sources, calibration, evaluation))


def evaluate(given: Namespace, meter: Meter) -> Answer:
    """What a model does on a text, and how it differs from a reference."""
    sources = steps.read_sources(given)
    assert sources.evaluation is not None, "the command asks for it"
    loaded = steps.load_or_stream(given, meter, given.model, given.revision)
    evaluation = steps.evaluation_set(given, loaded, sources.evaluation)
    reference = None
    if given.reference is not None:
        reference = steps.load_or_stream(given, meter, given.reference, given.reference_revision)
    report = steps.evaluate(given, loaded, reference, evaluation, meter)
    values = {
        "model": _model(loaded),
        "reference": None if reference is None else _model(reference),
        "evaluation": _record(evaluation),
        "report": report.to_dict(),
    }
    heading = loaded.source if reference is None else f"{loaded.source} beside {reference.source}"
    answer = Answer(values, (heading, *summaries.measured(report, evaluation)))
    return answer.with_notes(steps.notes(sources, evaluation))


def tasks(given: Namespace, meter: Meter) -> Answer:
    """Standard tasks on a model, and on a reference beside it."""
    with alone(NO_PROGRESS):
        ta.check_tasks(given.tasks, include_path=given.include_path)
    models = {"model": steps.load(given, meter, given.model, given.revision)}
    if given.reference is not None:
        models = {"reference": steps.load(given, meter, given.reference, given.reference_revision)} | models
    with alone(meter("Running")) as progress:
        results = ta.evaluate_tasks(
            models,
            given.tasks,
            limit=given.limit,
            num_fewshot=given.num_fewshot,
            batch_size=given.batch_size,
            include_path=given.include_path,
            progress=progress,
        )
    values = {**{name: _model(loaded) for name, loaded in models.items()}, "results": results.to_dict()}
    heading = " beside ".join(loaded.source for loaded in reversed(models.values()))
    return Answer(values, (heading, *summaries.tasks(results)))


def export(given: Namespace, meter: Meter) -> Answer:
    """A planned model in the form that was asked for."""
    sources = steps.read_sources(given)
    check_free(given.output, folder=given.kind == "checkpoint")
    loaded = steps.load(given, meter, given.model, given.revision)
    chosen = steps.choose(given, loaded, sources, meter, compensation=given.compensation)
    answer = _plan_written(given, loaded, chosen) if given.kind == "plan" else _cut(given, loaded, chosen, meter)[1]
    return answer.with_notes(steps.notes(sources, chosen.calibration))


def push(given: Namespace, meter: Meter) -> Answer:
    """A saved checkpoint on the hub."""
    pushed = ta.push(
        given.folder, given.repo, private=not given.public, overwrite=given.overwrite, progress=meter("Pushing")
    )
    return Answer(asdict(pushed), (f"The model is at {pushed.url} ({'private' if pushed.private else 'public'}).",))


def _plan_written(given: Namespace, loaded: ta.LoadedModel, chosen: Chosen) -> Answer:
    write_new(given.output, chosen.plan.to_json())
    parts = (*summaries.plan(loaded.source, chosen.plan), f"The plan is in {given.output}.")
    return Answer({**_planned(loaded, chosen), "output": str(given.output)}, parts)


def _cut(given: Namespace, loaded: ta.LoadedModel, chosen: Chosen, meter: Meter) -> tuple[ta.LoadedModel, Answer]:
    """The pruned model, saved where an output was named."""
    title = "Cutting"
    peak_bytes = ta.REPAIRS[given.compensation].peak_bytes
    if peak_bytes is not None and chosen.calibration is not None:
        title = with_memory(title, peak_bytes(chosen.plan, chosen.calibration, loaded.dtype.itemsize))
    pruned = ta.prune(
        loaded,
        chosen.plan,
        compensation=given.compensation,
        statistics=chosen.statistics,
        progress=meter(title),
    )
    values = {**_planned(loaded, chosen), "compensation": given.compensation}
    parts = summaries.plan(loaded.source, chosen.plan, given.compensation)
    if given.output is None:
        return pruned, Answer(values, parts)
    if vars(given).get("kind") == "gguf":
        file_type = given.file_type or options.GGUF_TYPE
        written = ta.save_gguf(pruned, given.output, file_type=file_type, progress=meter("Writing"))
        return pruned, Answer({**values, "saved": asdict(written)}, (*parts, summaries.saved_gguf(written)))
    saved = steps.save(given, pruned, meter)
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
