"""Cut a plan into a model, and write what came of it."""

from dataclasses import replace
from pathlib import Path

import transact as ta
from transact.wording import with_memory
from ui.server import zerogpu
from ui.state import plan_of_choice
from ui.state.session import Result, Scored, Session
from ui.work import streamed
from ui.work.registry import Registry
from ui.work.step_costs import SEARCH_PASSES
from ui.work.watch import Watch


def cut(registry: Registry, session: Session, repair: str, watch: Watch, *, search: bool = False) -> Result:
    """Prune as planned; the result is kept in the registry under its number.

    With `search`, what the best repair can do without is looked for first: as much in every layer as the plan says,
    and locks hold. Another repair takes the plan as it is.
    """
    plan, scored = session.need_plan(), session.need_scored()
    if search and ta.REPAIRS[repair].takes_search:
        loaded = registry.dense(session.key, watch)
        streamed.check_repair(loaded, ta.REPAIRS[repair])
        target = plan_of_choice.same_amounts(session)
        needed = ta.search_bytes(loaded.spec, target, scored.calibration, loaded.dtype.itemsize)
        watch.says(with_memory("Searching what can go", needed))
        plan = zerogpu.forward(
            ta.search_plan, loaded, scored.statistics, target,
            tokens=SEARCH_PASSES * scored.num_tokens, steps=SEARCH_PASSES * scored.num_samples, progress=watch,
            locks=session.choice.locks,
        )  # fmt: skip
    result = Result(number=session.counted + 1, scored=scored, choice=session.choice, plan=plan, repair=repair)
    pruned_model(registry, session.id, result, watch)
    return result


def pruned_model(registry: Registry, owner: str, result: Result, watch: Watch) -> ta.LoadedModel:
    """The model of a result: from memory, or cut again from its plan."""
    held = registry.pruned(owner, result.identity)
    if held is not None:
        return held
    loaded = registry.dense(result.scored.key, watch)
    if loaded.is_streamed:
        return streamed.pruned(registry, owner, result, watch)
    if result.folder is not None:
        _, trained = ta.Savepoints(result.folder).last(loaded)
        registry.keep_pruned(owner, result.identity, trained)
        return trained
    statistics, repair = result.scored.statistics, ta.REPAIRS[result.repair]
    if repair.needs_grams:
        statistics = _gram_statistics(registry, result.scored, loaded, watch)
    title = "Cutting and repairing" if repair.changes else "Cutting"
    if repair.peak_bytes is not None:
        title = with_memory(title, repair.peak_bytes(result.plan, result.scored.calibration, loaded.dtype.itemsize))
    watch.says(title)
    pruned = ta.prune(loaded, result.plan, compensation=result.repair, statistics=statistics, progress=watch)
    registry.keep_pruned(owner, result.identity, pruned)
    return pruned


def keep_trained(registry: Registry, session: Session, result: Result, pruned: ta.LoadedModel) -> Result:
    """The result with its model on the disk, as it cannot be cut again from its plan, and at hand in memory."""
    folder = registry.training_folder(session.id, [earlier.folder for earlier in session.results])
    ta.Savepoints(folder).keep(1, pruned)
    result = replace(result, folder=folder)
    registry.keep_pruned(session.id, result.identity, pruned)
    return result


def write_checkpoint(
    registry: Registry, owner: str, result: Result, folder: Path, watch: Watch, *, layers: str = "padded"
) -> str:
    """The result's checkpoint in a new folder, proved where stock classes can load it; returns what to say of it."""
    # a model that was cut in memory and is still there needs no dense one beside it
    in_memory = not result.scored.streamed and registry.pruned(owner, result.identity) is not None
    if not in_memory and registry.dense(result.scored.key, watch).is_streamed:
        return streamed.write_checkpoint(registry, owner, result, folder, watch, layers)
    pruned = pruned_model(registry, owner, result, watch)
    stock = layers == "padded" or pruned.spec.is_stock
    proving = " and proving that stock transformers computes the same" if stock else ""
    watch.says(f"Writing the checkpoint{proving}")
    report = ta.save(pruned, folder, dtype=pruned.file_dtype, layers=layers, prove=stock, progress=watch)
    proved = [f"Stock transformers loads it as {report.model_class}.", report.proof.outcome] if stock else ["Written."]
    return " ".join((*proved, *report.notes))


def write_gguf(registry: Registry, owner: str, result: Result, file: Path, watch: Watch, *, file_type: str) -> str:
    """The result as one file for llama.cpp; returns what to say of it."""
    pruned = pruned_model(registry, owner, result, watch)
    streamed.refuse(pruned, "GGUF is written from memory. Download the checkpoint, and convert it with llama.cpp's own "
                    "convert_hf_to_gguf.py.")  # fmt: skip
    watch.says("Writing GGUF")
    report = ta.save_gguf(pruned, file, file_type=file_type, progress=watch)
    summary = f"llama.cpp runs it as {report.architecture}, {report.bytes / 1e6:,.1f} MB."
    return " ".join((summary, *report.notes))


def _gram_statistics(
    registry: Registry, scored: Scored, loaded: ta.LoadedModel, watch: Watch
) -> ta.ActivationStatistics:
    """Statistics for least squares, over the text that was scored: a second pass, made only for that repair."""
    if ta.grams_for_repair(loaded.spec) == "by_layer":
        return replace(scored.statistics, gram_by_layer=True)

    def observe() -> ta.ActivationStatistics:
        watch.says("Reading the text again for the repair")
        return zerogpu.forward(
            ta.observe, loaded, scored.calibration,
            tokens=scored.num_tokens, steps=scored.num_samples, progress=watch, gram=True,
        )  # fmt: skip

    return registry.gram_statistics(scored, observe)
