"""The Hugging Face hub: configuration first, weights later, and one sentence for each way it says no."""

from collections.abc import Iterator
from contextlib import contextmanager
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

from transact.errors import CheckpointBroken, ModelNotFound

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
"""How long the hub may take to answer at all, before what is in the cache is used instead."""


def find_config(name: str, revision: str | None) -> Path:
    """config.json of a hub model, at a commit that its folder is named after; nothing else is fetched.

    Where the hub does not answer, the cached one. Raises `ModelNotFound` with the reason.
    """
    with _explained(name, revision):
        try:
            # asked once and briefly: the download itself would try for minutes before it gives up
            get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=_FIRST_ANSWER_SECONDS)
        except (hub_errors.HTTPError, ConnectionError) as error:
            cached = try_to_load_from_cache(name, "config.json", revision=revision)
            if _said_no(error) or not isinstance(cached, str):
                raise
            return Path(cached)
        return Path(hf_hub_download(name, "config.json", revision=revision))


def fetch(name: str, revision: str, *, at_most: int) -> Path:
    """The folder with the checkpoint's files, from the cache as far as it has them; never more than `at_most` bytes.

    Raises `ModelNotFound` where the hub does not answer and the cache lacks the weights, and, before anything is
    fetched, `CheckpointBroken` where the files are larger.
    """
    wanted = {"revision": revision, "allow_patterns": list(FILES)}
    with _explained(name, revision):
        try:
            get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=_FIRST_ANSWER_SECONDS)
        except (hub_errors.HTTPError, ConnectionError) as error:
            directory = Path(snapshot_download(name, **wanted, local_files_only=True))
            # only config.json may be there, from an earlier look at the model
            if _said_no(error) or not any(directory.glob("*.safetensors")):
                raise
            return directory
        files = snapshot_download(name, **wanted, dry_run=True)
        size = sum(file.file_size or 0 for file in files if file.will_download)
        if size > at_most:
            raise CheckpointBroken(
                f"The files of {name} have {size / 1e9:,.1f} GB, and a model of its config.json has at most "
                f"{at_most / 1e9:,.1f} GB with all that belongs to it. Choose another repository."
            )
        return Path(snapshot_download(name, **wanted))


def cached_card(name: str, revision: str | None) -> Path | None:
    """The README.md that was fetched with a hub model, if it was."""
    try:
        cached = try_to_load_from_cache(name, "README.md", revision=revision)
    except hub_errors.HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _said_no(error: Exception) -> bool:
    """Whether the hub answered, and the answer was about the model rather than about itself."""
    return isinstance(
        error,
        (hub_errors.RepositoryNotFoundError, hub_errors.RevisionNotFoundError, hub_errors.EntryNotFoundError),
    )


@contextmanager
def _explained(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub client raises into one sentence each."""
    try:
        yield
    except hub_errors.GatedRepoError:
        raise ModelNotFound(
            f"{name} is gated: accept its terms on its hub page and sign in (set HF_TOKEN), then load it again."
        ) from None
    except hub_errors.RepositoryNotFoundError:
        raise ModelNotFound(
            f"The hub has no public model {name!r}. Check the spelling; for a private model sign in (set HF_TOKEN)."
        ) from None
    except hub_errors.RevisionNotFoundError:
        raise ModelNotFound(f"{name} has no revision {revision!r}. Leave it empty for the default.") from None
    except hub_errors.LocalEntryNotFoundError as error:
        raise ModelNotFound(_unreachable(name)) from error
    except hub_errors.EntryNotFoundError as error:
        raise ModelNotFound(
            f"{name} has no config.json, or lost a file while it was fetched; it is no whole transformers checkpoint."
        ) from error
    except hub_errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        raise ModelNotFound(
            f"The hub answered for {name} with status {status}. Check your token (HF_TOKEN) if you set one, or try "
            "again later."
        ) from error
    except (hub_errors.HTTPError, ConnectionError) as error:
        raise ModelNotFound(_unreachable(name)) from error
    except OSError as error:
        raise ModelNotFound(f"{name} could not be stored on disk ({error.strerror or error}).") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelNotFound(
            f"The hub's answer for {name} makes no sense ({_first_line(error)}). A proxy may have answered in its "
            "place; check the connection."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _unreachable(name: str) -> str:
    offline = " (offline mode is on: HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    return (
        f"The hub could not be reached{offline}, and {name} is not in the local cache. Check the connection, or use "
        "a local folder or the bundled model."
    )
