"""Fetches a model's files into the hub client's cache; run by path in a process of its own, which can be killed.

The hub client retries for minutes before it gives up, cannot be interrupted meanwhile, and locks the file that it
waits for. A process can be killed, which releases its locks.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub import errors as hub_errors
from tqdm import tqdm

_CONFIG = "config.json"
_PIECE_BYTES, _REPORT_SECONDS = 256_000, 0.2
"""The client counts a piece once it has arrived; with its own 10 MB a slow connection would look like a dead one."""
_KINDS = (
    (hub_errors.GatedRepoError, "gated"),
    (hub_errors.RepositoryNotFoundError, "repository"),
    (hub_errors.RevisionNotFoundError, "revision"),
    (hub_errors.LocalEntryNotFoundError, "network"),
    (hub_errors.EntryNotFoundError, "entry"),
    (hub_errors.HfHubHTTPError, "status"),
    ((hub_errors.HTTPError, ConnectionError), "network"),
    (OSError, "disk"),
    ((ValueError, TypeError, AttributeError, KeyError, AssertionError), "nonsense"),
)
"""What the client raises, the most specific first; for each name `transact.models.hub` has a sentence."""


class TooLarge(Exception):
    """More would be fetched than the request allows; the text is how many bytes."""


def config(request: dict) -> str:
    """The path of config.json; from the cache where the hub does not answer. Raises `TooLarge` before it is fetched."""
    name, revision = request["name"], request["revision"]
    try:
        size = _config_bytes(request)
    except (hub_errors.HTTPError, ConnectionError) as error:
        cached = try_to_load_from_cache(name, _CONFIG, revision=revision)
        if _was_refused(error) or not isinstance(cached, str):
            raise
        return cached
    if size > request["at_most"]:
        raise TooLarge(size)
    return hf_hub_download(name, _CONFIG, revision=revision)


def files(request: dict, send: Callable[[dict], None]) -> str:
    """The folder with the files that match the patterns; from the cache where the hub does not answer.

    Raises `TooLarge`, and `OSError` where the disk has no room, before anything is fetched.
    """
    options = {"revision": request["revision"], "allow_patterns": request["files"]}
    try:
        _config_bytes(request)
    except (hub_errors.HTTPError, ConnectionError) as error:
        directory = snapshot_download(request["name"], **options, local_files_only=True)
        # only config.json may be there, from an earlier look at the model
        if _was_refused(error) or not any(name.endswith(".safetensors") for name in os.listdir(directory)):
            raise
        return directory
    listed = snapshot_download(request["name"], **options, dry_run=True)
    size = sum(file.file_size or 0 for file in listed if file.will_download)
    if size > request["at_most"]:
        raise TooLarge(size)
    free = _free_bytes(Path(constants.HF_HUB_CACHE))
    if size > free:
        raise OSError(errno.ENOSPC, f"its files have {size / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free")
    constants.DOWNLOAD_CHUNK_SIZE = _PIECE_BYTES
    return snapshot_download(request["name"], **options, tqdm_class=_reporting_bar(send))


def _free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def _config_bytes(request: dict) -> int:
    """Bytes of config.json, by a single request with a short time limit, as a download would retry for minutes."""
    url = hf_hub_url(request["name"], _CONFIG, revision=request["revision"])
    return get_hf_file_metadata(url, timeout=request["first_answer_seconds"]).size or 0


def _was_refused(error: Exception) -> bool:
    """Whether the hub answered, and the answer was about the model rather than about itself."""
    return isinstance(
        error,
        (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError, hub_errors.EntryNotFoundError),
    )


def _reporting_bar(send: Callable[[dict], None]) -> type[tqdm]:
    """A progress bar for the client that reports bytes instead of drawing."""

    nowhere = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process is)

    class ReportingBar(tqdm):
        reported = 0.0

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "file": nowhere})

        def update(self, n=1):
            super().update(n)
            now = time.monotonic()
            # of the three bars this one counts the bytes on disk; the others count those received, and files
            if (self.desc or "").startswith("Reconstructing") and self.total and now - self.reported > _REPORT_SECONDS:
                self.reported = now
                send({"progress": [int(self.n), int(self.total), "bytes"]})

    return ReportingBar


def why(error: BaseException) -> dict:
    """The failure as facts: which kind, the hub's status where it answered, and what the client said."""
    kind = next((kind for raised, kind in _KINDS if isinstance(error, raised)), "nonsense")
    if kind == "disk" and getattr(error, "errno", None) is None:
        kind = "incomplete"  # the client's own check of the size
    message = getattr(error, "strerror", None) or (str(error).strip().splitlines() or [type(error).__name__])[0]
    status = getattr(getattr(error, "response", None), "status_code", None)
    return {"refused": kind, "status": status, "message": str(message)[:200], "offline": constants.HF_HUB_OFFLINE}


def answer(request: dict, send: Callable[[dict], None]) -> dict:
    """Fetch the files that the request names by patterns, or config.json where it names none."""
    send({"progress": [0, 0, "bytes"]})  # from here on the time limit of the hub applies
    try:
        return {"path": files(request, send) if request["files"] else config(request)}
    except TooLarge as error:
        return {"refused": "size", "size": error.args[0]}
    except Exception as error:  # network failures have many types
        return why(error)
