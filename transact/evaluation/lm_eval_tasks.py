"""Standard benchmarks by name, with the usual harness, run on models as they are in memory.

The harness is EleutherAI's `lm_eval` (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness), an optional
package. It chooses the documents, writes the prompts, scores and averages; here it gets the models, whose layers may
have different sizes, and its results are put in one table. Numbers of different versions of harness or task are not
comparable, so both versions are reported.
"""

import copy
import difflib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from transact.errors import InvalidOption, InvalidTask, NotEnoughMemory, TransactError, whole_number
from transact.layers.hooks import checking
from transact.models.loaded_model import LoadedModel
from transact.progress import NO_PROGRESS, Cancelled, Progress

if TYPE_CHECKING:
    from lm_eval.tasks.manager import TaskDict, TaskManager

_FEWSHOT_SEED = 1234
"""The harness's own."""
_RESAMPLES = 1000
"""Bootstrap draws for the standard errors that have no formula; the harness's 100,000 would take minutes."""


@dataclass(frozen=True)
class TaskScore:
    """One metric of one task on one model, as the harness gives it.

    `filter` names how answers were read from the text, "none" for likelihoods. `value` is None where it is not finite,
    `standard_error` (over documents) where the harness knows none, `higher_is_better` and `num_fewshot` where it
    does not say, `num_documents` for a group of tasks. `version` is that of the task.
    """

    model: str
    task: str
    metric: str
    filter: str
    value: float | None
    standard_error: float | None
    higher_is_better: bool | None
    num_fewshot: int | None
    num_documents: int | None
    version: str


@dataclass(frozen=True)
class TaskResults:
    """Every score, models within tasks in the order they were given; `harness` names the package and its version.

    `limit`: the most documents of a task, None for all.
    """

    scores: tuple[TaskScore, ...]
    models: tuple[str, ...]
    harness: str
    limit: int | None

    def to_dict(self) -> dict:
        """JSON-able."""
        return asdict(self)

    def rows(self) -> dict[tuple[str, str, str], dict[str, TaskScore]]:
        """The scores by (task, metric, filter), and then by model: the table with the models side by side."""
        rows: dict[tuple[str, str, str], dict[str, TaskScore]] = {}
        for score in self.scores:
            rows.setdefault((score.task, score.metric, score.filter), {})[score.model] = score
        return rows


def check_tasks(tasks: Sequence[str], *, include_path: str | Path | None = None) -> None:
    """Check tasks before the work; needs no model and no network.

    Raises `InvalidTask` for an unknown name or a folder that is not there, `InvalidOption` without `lm_eval`.
    """
    _managers(tasks, include_path)


def evaluate_tasks(
    models: Mapping[str, LoadedModel],
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int = 8,
    include_path: str | Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> TaskResults:
    """Run the tasks, groups or tags of `lm_eval` that are named on every model; `models` by the name to report.

    - `limit`: only the first `limit` documents of each task. `num_fewshot`: examples in the prompt instead of the
      task's own number; tasks made for none keep none.
    - `include_path`: a folder with task files (.yaml) of your own beside the standard ones. They may name Python
      functions, which are run, and data files by their place beside them.
    - `progress` is in tasks, those of each model counted; cancellation is checked at every decoder layer. The harness
      draws its own bars on standard error.

    The data sets are fetched from the hub, unless they are on the disk, before anything is run. The models and their
    tokenizers are unchanged afterwards. Raises `InvalidTask` for a task that does not exist, whose data cannot be
    fetched, or that does not suit a model, and `InvalidOption` without `lm_eval` or for a number out of range.
    """
    _check(models, limit, num_fewshot, batch_size)
    names = tuple(dict.fromkeys(tasks))
    managers = _managers(names, include_path)
    total = len(names) * len(models)
    progress(0, total, "tasks")
    scores: list[TaskScore] = []
    loaded_tasks = {}
    for name, manager in managers.items():
        with _explained(f"The task {name} cannot be loaded"):
            loaded_tasks[name] = manager.load([_with_data_beside(manager, name)])
    for done, (name, (label, loaded)) in enumerate(product(names, models.items())):
        # the harness itself reports no progress and cannot be cancelled
        check = partial(progress, done, total, "tasks")
        with _explained(f"The task {name} cannot be run on {label}"), checking(loaded.stages, check):
            scores += _scores(label, _run(loaded, loaded_tasks[name], limit, num_fewshot, batch_size))
        progress(done + 1, total, "tasks")
    return TaskResults(tuple(scores), tuple(models), _harness(), limit)


def _with_data_beside(manager: "TaskManager", name: str) -> "str | dict":
    """The task's name, or all it says with its data files as paths, where these lie beside its own file.

    The harness itself would look for them in the folder that the process runs in.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    path = getattr(manager.task_index[name], "yaml_path", None)
    if path is None:
        return name
    options = load_yaml(path, resolve_func=False).get("dataset_kwargs")
    files = options.get("data_files") if isinstance(options, dict) else None
    if not isinstance(files, dict):
        return name
    beside = {split: str(path.parent / file) for split, file in files.items()
              if isinstance(file, str) and (path.parent / file).is_file()}  # fmt: skip
    if not beside:
        return name
    return {**load_yaml(path), "dataset_kwargs": {**options, "data_files": {**files, **beside}}}


def _run(
    loaded: LoadedModel, task_dict: "TaskDict", limit: int | None, num_fewshot: int | None, batch_size: int
) -> dict:
    """What the harness's own command would compute with these settings, without its report on the machine."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    # standard errors are resampled in this process: forking one that has threads may hang
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    for task in task_dict["tasks"].values():
        fixed = task.get_config("num_fewshot")
        if fixed is None or (num_fewshot is not None and fixed != 0):
            task.set_config("num_fewshot", num_fewshot or 0)
        task.set_fewshot_seed(_FEWSHOT_SEED)  # every model sees the same examples
    model = HFLM(
        pretrained=loaded.model,
        tokenizer=copy.deepcopy(loaded.tokenizer),  # the harness adds a padding token
        backend="causal",
        max_length=loaded.context_length,
        batch_size=batch_size,
    )
    return evaluate(lm=model, task_dict=task_dict, limit=limit, bootstrap_iters=_RESAMPLES, log_samples=False)


def _scores(label: str, results: dict) -> list[TaskScore]:
    """The harness's dictionary, whose keys are "metric,filter" and "metric_stderr,filter" among others."""
    scores = []
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, comma, filter_name = key.partition(",")
            if not comma or metric.endswith("_stderr"):
                continue
            scores.append(
                TaskScore(
                    model=label,
                    task=task,
                    metric=metric,
                    filter=filter_name,
                    value=_finite(value),
                    standard_error=_finite(values.get(f"{metric}_stderr,{filter_name}")),
                    higher_is_better=results["higher_is_better"].get(task, {}).get(metric),
                    num_fewshot=results["n-shot"].get(task),
                    num_documents=results["n-samples"].get(task, {}).get("effective"),
                    version=str(results["versions"].get(task)),
                )
            )
    return scores


def _finite(value: object) -> float | None:
    """As float, or None for what is not a number: the harness writes "N/A"."""
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def _check(models: Mapping[str, LoadedModel], limit: int | None, num_fewshot: int | None, batch_size: int) -> None:
    for name, value, least in (("limit", limit, 1), ("num_fewshot", num_fewshot, 0), ("batch_size", batch_size, 1)):
        if value is not None:
            whole_number(value, name, least=least)
    for label, loaded in models.items():
        if loaded.tokenizer is None:
            raise InvalidTask(f"{label} came without a tokenizer, so it cannot read a task's text.")


def _managers(names: Sequence[str], include_path: str | Path | None) -> dict[str, "TaskManager"]:
    """The manager of each name; the standard tasks are read only if one is named, as that takes seconds."""
    _harness()
    if not names:
        raise InvalidTask("No task is named. Name at least one.")
    own = None if include_path is None else _own(Path(include_path), names)
    managers = {}
    for name in names:
        managers[name] = own if own is not None and name in own.task_index else _standard()
        if name not in managers[name].task_index:
            raise InvalidTask(_unknown(name, own))
    return managers


@cache
def _standard() -> "TaskManager":
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _own(folder: Path, names: Sequence[str]) -> "TaskManager":
    from lm_eval.tasks import TaskManager

    if not folder.is_dir():
        raise InvalidTask(f"There is no folder {folder} with task files. Check its name.")
    own = TaskManager(include_path=folder, include_defaults=False)
    # a group may hold standard tasks
    return TaskManager(include_path=folder) if set(names) & set(own.all_groups) else own


def _unknown(name: str, own: "TaskManager | None") -> str:
    standard, in_folder = _standard().all_tasks, [] if own is None else own.all_tasks
    close = difflib.get_close_matches(name, {*in_folder, *standard}, n=5)
    similar = f"Similar names: {', '.join(close)}." if close else "No name is similar."
    return f"There is no task named {name!r}. {similar} `lm_eval ls tasks` lists the {len(standard):,} standard ones."


def _harness() -> str:
    """Name and version; raises `InvalidOption` where it is not installed."""
    try:
        return f"lm_eval {version('lm_eval')}"
    except PackageNotFoundError:
        raise InvalidOption(
            "Standard tasks need the package lm_eval. Install it (pip install lm_eval), or measure on text of your own."
        ) from None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise whatever the harness raises in the block as `InvalidTask`, in one sentence."""
    try:
        yield
    except (TransactError, Cancelled):
        raise
    except torch.OutOfMemoryError as error:
        raise NotEnoughMemory(f"{what}: memory ran out. Choose a smaller batch_size.") from error
    except Exception as error:  # task code and downloads raise many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidTask(f"{what}: {reason}") from error
