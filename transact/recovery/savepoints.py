"""A folder from which an interrupted recovery resumes, at the model of its last finished stage.

    recovery.json      what this recovery is; another one is refused
    points.jsonl       the figures so far, a line each
    stage-<n>/         the model after stage n: weights, and the cuts that give its shape; only the last one stays
    training/          the Trainer's checkpoints within the stage that follows, and its best weights so far

A stage's folder appears only when all of it is written.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from transact.cutting.prune import prune
from transact.errors import CheckpointBroken, InvalidOption, SaveRefused
from transact.layers.weights import without_tied_copies
from transact.models.loaded_model import LoadedModel
from transact.runtime.distributed import is_main, wait_for_all
from transact.spec.plan import Cut, PruningPlan, compose_cuts

_IDENTITY, _POINTS, _STAGE, _TRAINING = "recovery.json", "points.jsonl", "stage-", "training"
_CHECKPOINT_STATE = "trainer_state.json"
"""A checkpoint of the Trainer is complete once it has this file."""
_WEIGHTS, _CUTS = "weights.safetensors", "cuts.json"


@dataclass(frozen=True)
class RecoveryPoint:
    """One figure of a recovery.

    `phase`: "dense", "shot i of K" or "recovery"; `step` and `tokens` within the phase, 0 before its training;
    `loss` (nats per prediction, a mean since the last such point) with `learning_rate` and `tokens_per_second`, or
    `perplexity` on the evaluation text; `parameters` of the model then.
    """

    phase: str
    step: int
    tokens: int
    parameters: int
    loss: float | None = None
    learning_rate: float | None = None
    perplexity: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class Savepoints:
    """`directory` belongs to the recovery that `identity` describes (JSON-able)."""

    directory: Path

    @classmethod
    def opened(cls, directory: str | Path, identity: dict) -> "Savepoints":
        """Raises `InvalidOption` for a folder of another recovery, `SaveRefused` where it cannot be written."""
        points = cls(Path(directory).expanduser().resolve())
        file = points.directory / _IDENTITY
        text = json.dumps(identity, indent=1, sort_keys=True) + "\n"
        try:
            if file.exists():
                points._check_same(file.read_text(encoding="utf-8"), text)
            elif is_main():
                if points.directory.exists() and any(points.directory.iterdir()):
                    raise InvalidOption(f"{points.directory} holds other files. Choose a new or an empty folder.")
                points.directory.mkdir(parents=True, exist_ok=True)
                _write(file, text)
        except OSError as error:
            raise _refused(points.directory, error) from error
        wait_for_all()
        return points

    def _check_same(self, before: str, now: str) -> None:
        if before == now:
            return
        old, new = (dict(json.loads(text)) for text in (before, now))
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        raise InvalidOption(
            f"{self.directory} belongs to a recovery with another {', '.join(names)}. Choose a new folder, or give "
            "what was given then to go on with it."
        )

    @property
    def training(self) -> Path:
        return self.directory / _TRAINING

    def keep(self, stage: int, loaded: LoadedModel) -> None:
        """Write the model after that stage; the files of earlier stages are removed."""
        if is_main():
            try:
                self._write_stage(stage, loaded)
            except (OSError, SafetensorError) as error:
                raise _refused(self.directory, error) from error
        wait_for_all()

    def _write_stage(self, stage: int, loaded: LoadedModel) -> None:
        partial = self.directory / f".{_STAGE}{stage}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            state = without_tied_copies(loaded.model.state_dict())
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, partial / _WEIGHTS)
            cuts = [{**vars(cut), "plan": cut.plan.to_json()} for cut in loaded.cuts]
            _write(partial / _CUTS, json.dumps(cuts))
            os.replace(partial, self.directory / f"{_STAGE}{stage}")
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(self.training, ignore_errors=True)
        for earlier, folder in self._stages():
            if earlier < stage:
                shutil.rmtree(folder, ignore_errors=True)

    def last(self, dense: LoadedModel) -> tuple[int, LoadedModel]:
        """The last finished stage and its model; stage 0 is the dense one."""
        latest = max(self._stages(), default=None)
        if latest is None:
            return 0, dense
        stage, folder = latest
        try:
            records = json.loads((folder / _CUTS).read_text(encoding="utf-8"))
            cuts = tuple(Cut(**{**record, "plan": PruningPlan.from_json(record["plan"])}) for record in records)
            state = load_file(folder / _WEIGHTS, device=str(dense.device))
            pruned = prune(dense, compose_cuts(cuts[len(dense.cuts) :]))
            keys = pruned.model.load_state_dict(state, strict=False)  # tied weights are written once
            lacking = set(keys.missing_keys) & set(without_tied_copies(pruned.model.state_dict()))
            if lacking or keys.unexpected_keys:
                raise ValueError(f"not the model's tensors: {sorted(lacking or keys.unexpected_keys)[0]}")
        except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise CheckpointBroken(
                f"{folder} cannot be read ({error}). Remove that folder to begin anew, or choose another one."
            ) from error
        return stage, replace(pruned, cuts=cuts)

    def _stages(self) -> list[tuple[int, Path]]:
        folders = self.directory.glob(f"{_STAGE}*")
        return [(int(folder.name.removeprefix(_STAGE)), folder) for folder in folders]

    def add_point(self, point: RecoveryPoint) -> None:
        """Append a figure."""
        if is_main():
            try:
                with (self.directory / _POINTS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(point)) + "\n")
            except OSError as error:
                raise _refused(self.directory, error) from error

    def points(self) -> list[RecoveryPoint]:
        """All figures; a line that was cut off is left out."""
        try:
            lines = (self.directory / _POINTS).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(RecoveryPoint(**json.loads(line)))
            except ValueError:
                continue
        return found

    def rewrite_points(self, points: list[RecoveryPoint]) -> None:
        """Keep only these figures: those after the last checkpoint, which an interruption left, are dropped."""
        if is_main():
            try:
                _write(self.directory / _POINTS, "".join(json.dumps(asdict(point)) + "\n" for point in points))
            except OSError as error:
                raise _refused(self.directory, error) from error


def last_checkpoint(directory: Path) -> str | None:
    """The Trainer's newest complete checkpoint; one that is incomplete is removed."""
    for _, folder in sorted(((int(found.name.rpartition("-")[2]), found) for found in directory.glob("checkpoint-*")),
                            reverse=True):  # fmt: skip
        try:
            json.loads((folder / _CHECKPOINT_STATE).read_text(encoding="utf-8"))
            return str(folder)
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


def _refused(directory: Path, error: Exception) -> SaveRefused:
    return SaveRefused(
        f"{directory} could not be written ({error}). Free some space or choose another place; what was saved there "
        "before is intact, and the same call goes on from it."
    )
