"""What is done in another way with a model that does not fit into memory: its layers pass one after the other.

The calibration text goes through them once; what is cut goes into a folder, of which each visitor has the latest, as
every other can be cut again from its plan; a perplexity takes one pass. Whatever takes many passes is refused.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import transact as ta
from ui.errors import WrongInput
from ui.state.session import Result
from ui.work.registry import Registry
from ui.work.watch import Watch

SEQUENCES = 16
"""Sequences that are measured on: reading them takes about as long as scoring does."""


def refuse(loaded: ta.LoadedModel, why: str) -> None:
    """Raise `WrongInput` where the model is streamed; `why` says what that keeps from being done, and what to do."""
    if loaded.is_streamed:
        raise WrongInput(
            f"{loaded.source} is larger than the memory here, so its layers are read from its files one after the "
            f"other. {why}"
        )


def check_repair(loaded: ta.LoadedModel, repair: ta.Repair) -> None:
    """Raise `WrongInput` for a repair that needs the whole of a streamed model."""
    if not repair.streams:
        refuse(
            loaded, f"The {repair.name} repair needs all of them at once. Choose another; refitting (least squares) "
            "comes next.",
        )  # fmt: skip


def observe(
    registry: Registry, loaded: ta.StreamedModel, calibration: ta.CalibrationSet, watch: Watch, **kept
) -> ta.ActivationStatistics:
    """The text past one layer after the other; stopped, the same goes on at the layer where it was."""
    return ta.stream_observe(loaded, calibration, savepoint=registry.scoring_folder, progress=watch, **kept)


def checkpoint(registry: Registry, owner: str, result: Result, watch: Watch) -> Path:
    """The folder with the result's files, cut again where others took its place; stopped, it goes on where it was."""
    folder = registry.checkpoint_folder(owner, result.identity)
    if folder.exists():
        return folder
    loaded = registry.dense(result.scored.key, watch)
    if result.folder is not None:
        refuse(loaded, "What was trained is put together with all of them. Try again once others have made room.")
    repair = ta.REPAIRS[result.repair]
    check_repair(loaded, repair)
    statistics = replace(result.scored.statistics, gram_by_layer=repair.needs_grams)
    watch.says("Cutting and repairing layer by layer" if repair.changes else "Cutting layer by layer")
    ta.stream_prune(loaded, result.plan, folder, compensation=result.repair, statistics=statistics, progress=watch)
    return folder


def write_checkpoint(registry: Registry, owner: str, result: Result, folder: Path, watch: Watch, layers: str) -> str:
    """The result's files in a new folder, sharing their place on the disk where they can; what to say of them."""
    if layers != "padded" and not result.plan.spec.is_stock:
        refuse(registry.dense(result.scored.key, watch), "They were cut into padded files. Choose “Padded”.")
    shutil.copytree(checkpoint(registry, owner, result, watch), folder, copy_function=_linked)
    return "Written. It is not proved, as that would hold the whole model in memory."


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target)


def pruned(registry: Registry, owner: str, result: Result, watch: Watch) -> ta.LoadedModel:
    """What was cut: in memory where it fits now, or streamed as the dense model is."""
    folder = checkpoint(registry, owner, result, watch)
    watch.says("Opening what was cut")
    opened = registry.opened(folder, result.scored.key.dtype, watch)
    if not opened.is_streamed:
        registry.keep_pruned(owner, result.identity, opened)
    return opened
