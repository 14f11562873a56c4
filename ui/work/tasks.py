"""Standard tasks: what `lm_eval` says of the dense and of the pruned model."""

import re
from importlib.util import find_spec

import transact as ta
from ui.errors import WrongInput
from ui.server import environment, limits
from ui.state.session import Result, TasksRun
from ui.work import streamed
from ui.work.pruning import pruned_model
from ui.work.registry import Registry
from ui.work.watch import Watch

DENSE, PRUNED = "dense", "pruned"
MAX_TASKS, MAX_DOCUMENTS = 8, 10_000
_NAME = re.compile(r"^\s*task\s*:\s*[\"']?([\w.:-]+)[\"']?\s*$", re.MULTILINE)


def installed() -> bool:
    return find_spec("lm_eval") is not None


def names_here() -> tuple[str, ...]:
    """The tasks of the host's folder by name; their files are read, not run."""
    folder = environment.tasks_folder()
    if folder is None or not folder.is_dir():
        return ()
    texts = (file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.rglob("*.yaml")))
    return tuple(dict.fromkeys(match.group(1) for text in texts if (match := _NAME.search(text))))


def may_name_others() -> bool:
    """Whether standard tasks may be named, whose data are fetched from the hub: on one's own machine."""
    return not environment.is_public()


def checked(names: object, documents: object) -> tuple[tuple[str, ...], int]:
    """Tasks and documents as the form sends them; raises `WrongInput` for what may not be run here."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise WrongInput("No task is chosen; choose at least one, then run them.")
    if len(names) > MAX_TASKS:
        raise WrongInput(f"{len(names):,} tasks are chosen; at most {MAX_TASKS} are run at a time.")
    here = names_here()
    for name in names:
        if name not in here and not may_name_others():
            raise WrongInput(f"There is no task “{name[:100]}” here; choose from the list ({', '.join(here[:8])}).")
    return tuple(names), limits.whole("Documents of each task", documents, 1, MAX_DOCUMENTS)


def run(
    registry: Registry, owner: str, result: Result, names: tuple[str, ...], documents: int, watch: Watch
) -> TasksRun:
    """Both models on the tasks; raises `WrongInput` for a streamed model, and as `transact.evaluate_tasks` does."""
    loaded = registry.dense(result.scored.key, watch)
    streamed.refuse(loaded, "A task would read all of them for every question. Measure on a text instead.")
    pruned = pruned_model(registry, owner, result, watch)
    here = set(names_here())
    folder = environment.tasks_folder() if here & set(names) else None
    watch.says("Answering the tasks")
    found = ta.evaluate_tasks(
        {DENSE: loaded, PRUNED: pruned}, names, limit=documents, include_path=folder, progress=watch
    )
    return TasksRun(result.number, found)
