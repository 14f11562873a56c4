"""The Hugging Face hub: configuration first, weights later, and one sentence for each kind of failure."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import try_to_load_from_cache

from transact.errors import CheckpointBroken, ModelNotFound
from transact.models import download_script, hub_cache
from transact.progress import NO_PROGRESS, Progress
from transact.runtime import isolated_process
from transact.runtime.isolated_process import IsolatedProcessFailed

# what a stock checkpoint consists of; no pattern reaches into sub-folders or duplicates the weights
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "README.md",
)
_FIRST_ANSWER_SECONDS = 10
"""How long the hub may take for its first answer, before the cache is used instead."""
_SILENCE_SECONDS = 60.0
"""How long nothing may arrive before a download is given up; progress is counted by quarters of a megabyte."""
_SECONDS = 7 * 24 * 3600.0


class _Silent(Exception):
    """Nothing has arrived for too long."""


def find_config(name: str, revision: str | None, *, at_most: int, progress: Progress = NO_PROGRESS) -> Path:
    """config.json of a hub model, in a folder named after its commit; nothing else is fetched.

    Where the hub does not answer, or `revision` is a commit, the cached one. Raises `ModelNotFound` with the reason,
    `CheckpointBroken` where it has more than `at_most` bytes, or the cached one is damaged and cannot be replaced, and
    what `progress` raises.
    """

    def get() -> Path:
        cached = try_to_load_from_cache(name, "config.json", revision=revision) if _is_commit(revision) else None
        return Path(cached) if isinstance(cached, str) else _fetched(name, revision, (), progress, at_most)

    return _undamaged(name, get, NO_PROGRESS)


def fetch(name: str, revision: str, *, at_most: int, progress: Progress = NO_PROGRESS) -> Path:
    """The folder with the checkpoint's files, from the cache as far as it has them whole; reports "bytes".

    Raises `ModelNotFound` where the hub does not answer, or stops sending, and the cache lacks the weights;
    `CheckpointBroken` where a cached file is damaged and cannot be replaced, and, before anything is fetched, where
    that would be more than `at_most` bytes; and what `progress` raises.
    """
    return _undamaged(name, lambda: _fetched(name, revision, FILES, progress, at_most), progress)


def cached_card(name: str, revision: str | None) -> Path | None:
    """The README.md that was fetched with a hub model, if it was."""
    try:
        cached = try_to_load_from_cache(name, "README.md", revision=revision)
    except hub_errors.HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _is_commit(revision: str | None) -> bool:
    """Whether the revision is the full name of a commit, whose content never changes."""
    return revision is not None and re.fullmatch("[0-9a-f]{40}", revision) is not None


def _undamaged(name: str, get: Callable[[], Path], progress: Progress) -> Path:
    """What `get` finds; damaged files in it are fetched anew, once."""
    place = get()
    hub_cache.note_use(place)
    damaged = hub_cache.damaged(place, progress)
    if not damaged:
        return place
    for file in damaged:
        hub_cache.drop(file)
    first = damaged[0].name
    try:
        place = get()
    except ModelNotFound as error:
        raise CheckpointBroken(
            f"{first} of {name} was damaged in the cache (HF_HOME). It has been removed there, but "
            f"could not be fetched anew. {error}"
        ) from error
    remaining = hub_cache.damaged(place, progress)
    if remaining:
        for file in remaining:
            hub_cache.drop(file)
        raise CheckpointBroken(
            f"{remaining[0].name} of {name} does not arrive as the hub published it (its checksum differs, twice). Try "
            "again later, or from another network."
        )
    return place


def _fetched(name: str, revision: str | None, files: tuple[str, ...], progress: Progress, at_most: int) -> Path:
    """What `download_script` finds, in a process of its own; raises `ModelNotFound` with one sentence."""
    request = {
        "name": name, "revision": revision, "files": files, "at_most": at_most,
        "first_answer_seconds": _FIRST_ANSWER_SECONDS,
    }  # fmt: skip
    try:
        answer = isolated_process.run(
            Path(download_script.__file__), request, _with_time_limit(progress), seconds=_SECONDS
        )
    except _Silent:
        raise ModelNotFound(
            f"The hub has sent nothing of {name} for {_SILENCE_SECONDS:.0f} seconds. Check the connection, then try "
            "again; what has arrived whole is kept."
        ) from None
    except IsolatedProcessFailed as error:
        raise ModelNotFound(f"{name} was not fetched to its end ({error}). Try again.") from error
    if answer.get("refused") == "size" and not files:
        raise CheckpointBroken(
            f"config.json of {name} has {answer['size'] / 1e6:,.0f} MB; at most {at_most / 1e6:.0f} MB are read. "
            "Choose another repository."
        )
    if answer.get("refused") == "size":
        raise CheckpointBroken(
            f"The files of {name} have {answer['size'] / 1e9:,.1f} GB, and a model of its config.json has at most "
            f"{at_most / 1e9:,.1f} GB with all that belongs to it. Choose another repository."
        )
    if "refused" in answer:
        raise ModelNotFound(_sentence(answer, name, revision))
    return Path(answer["path"])


def _with_time_limit(progress: Progress) -> Progress:
    """`progress` that raises `_Silent` after too long without a new maximum: a file begun anew is no progress.

    What comes before the first "bytes" is the start of the process, which is not counted.
    """
    furthest, since = -1, time.monotonic()

    def watch(done: int, total: int, unit: str) -> None:
        nonlocal furthest, since
        progress(done, total, unit)
        if done > furthest or unit != "bytes":
            furthest, since = done, time.monotonic()
        elif time.monotonic() - since > _SILENCE_SECONDS:
            raise _Silent

    return watch


def _sentence(answer: dict, name: str, revision: str | None) -> str:
    match answer["refused"]:
        case "gated":
            return f"{name} is gated: accept its terms on its hub page and sign in (set HF_TOKEN), then load it again."
        case "repository":
            return (
                f"The hub has no public model {name!r}. Check the spelling; for a private model sign in (set HF_TOKEN)."
            )
        case "revision":
            return f"{name} has no revision {revision!r}. Leave it empty for the default."
        case "entry":
            return (
                f"{name} has no config.json, or lost a file while it was fetched; it is no whole transformers "
                "checkpoint."
            )
        case "status":
            return (
                f"The hub answered for {name} with status {answer['status']}. Check your token (HF_TOKEN) if you set "
                "one, or try again later."
            )
        case "network":
            offline = " (offline mode is on: HF_HUB_OFFLINE)" if answer["offline"] else ""
            return (
                f"The hub could not be reached{offline}, or broke off, and {name} is not in the local cache. Check the "
                "connection, or use a local folder or the bundled model."
            )
        case "incomplete":
            return f"A file of {name} did not arrive whole ({answer['message']}) Try again."
        case "disk":
            return (
                f"{name} could not be stored on disk ({answer['message']}). Free some space where the hub's cache is "
                "(HF_HOME), or choose a smaller model."
            )
        case _:
            return (
                f"The hub's answer for {name} makes no sense ({answer['message']}). A proxy may have answered in its "
                "place; check the connection."
            )
