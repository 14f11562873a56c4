"""Rows of a Hugging Face dataset become a `TextSource`: streamed, so that a terabyte costs no more than its first rows.

No code of a dataset is ever run. Whatever goes wrong becomes one sentence.
"""

import ast
import pkgutil
import queue
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

import transact as ta
from transact.text.text_tables import is_text, likeliest_first
from ui.errors import WrongInput
from ui.server import environment
from ui.server.limits import MAX_STREAMED_CHARACTERS as MAX_CHARACTERS
from ui.server.limits import MAX_STREAMED_ROWS as MAX_ROWS
from ui.text_sources.dataset_card import pinned
from ui.text_sources.text_source import DatasetChoice, TextSource

_MAX_FILES = 10_000
"""More files than this make a folder a disk rather than a dataset, and listing them would take minutes."""
_SEARCHED_ROWS = 100
_ROWS_AHEAD = 64
_POLL_SECONDS = 0.15
_SILENCE_SECONDS = 120.0
_STRINGS = ("string", "large_string", "string_view")
_EXAMPLE = "a hub id such as “Salesforce/wikitext” or the folder of a dataset on this machine"


@dataclass(frozen=True)
class DatasetRequest:
    """The first `limit` texts of a dataset, still to be read."""

    choice: DatasetChoice
    limit: int

    @property
    def name(self) -> str:
        return self.choice.name

    def read(self, progress: ta.Progress) -> TextSource:
        """The texts. Raises what `streamed` raises."""
        return streamed(self.choice, self.limit, progress)


def streamed(choice: DatasetChoice, limit: int, progress: ta.Progress = ta.NO_PROGRESS) -> TextSource:
    """The first `limit` rows that hold text, fewer where the dataset or `MAX_ROWS` or `MAX_CHARACTERS` ends before.

    Reports "texts". Raises `WrongInput` with the reason where there are none, and what `progress` raises, between two
    rows as well as while it waits for the hub.
    """
    place = _place(choice.name)
    texts: list[str] = []
    origin: dict[str, str | None] = {}
    characters, column = 0, choice.column

    def look_in() -> None:
        progress(len(texts), limit, "texts")

    look_in()
    with closing(_arriving(_rows(choice, place, origin), look_in, choice.name)) as rows:
        for row in islice(rows, MAX_ROWS):
            ((column, cell),) = row.items()
            if is_text(cell):
                characters += len(cell)
                if characters > MAX_CHARACTERS:
                    break
                texts.append(cell)
            look_in()
            if len(texts) == limit:
                break
    if not texts:
        raise WrongInput(_no_text(choice, column, characters))
    read = replace(choice, name=place, column=column, revision=origin.get("revision"))
    return TextSource(str(choice), tuple(texts), "dataset", dataset=read)


def _place(name: str) -> str:
    """What a name stands for: the absolute path of a local folder, or a hub id as it is."""
    if not name:
        raise WrongInput(f"No dataset was named; give {_EXAMPLE}.")
    if not environment.may_name(name):
        raise WrongInput(environment.refusal(name))
    try:
        path = Path(name).expanduser().resolve()
        if path.is_dir():
            if len(list(islice(path.rglob("*"), _MAX_FILES + 1))) > _MAX_FILES:
                raise WrongInput(f"{name} holds more than {_MAX_FILES:,} files; name the folder of one dataset.")
            return str(path)
        if path.exists():
            raise WrongInput(f"{name} is a file; upload it instead, or name the folder that it is in.")
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL: nothing on this disk
        pass
    if not name.startswith((".", "/", "~")):
        try:
            validate_repo_id(name)
            return name
        except hub_errors.HFValidationError:
            pass
    raise WrongInput(f"There is no folder “{name[:200]}”, and it is no hub id either; give {_EXAMPLE}.")


def _rows(choice: DatasetChoice, place: str, origin: dict[str, str | None]) -> Iterator[dict]:
    """Rows of one column, {its name: cell}; the commit they are of is left in `origin` under "revision".

    Raises `WrongInput` for everything that `datasets` can raise.
    """
    # imported where it is needed: it takes a second, which no visitor should wait for to see the page
    import datasets

    if place in {module.name for module in pkgutil.iter_modules(datasets.packaged_modules.__path__)}:
        raise WrongInput(f"“{place}” is the name of a file format and not of a dataset; give {_EXAMPLE}.")
    try:
        origin["revision"] = pinned(place)
        stream = datasets.load_dataset(
            place, choice.config, split=choice.split, streaming=True, revision=origin["revision"]
        )
        # the other columns may be pictures or sound, which would be decoded for nothing
        yield from stream.select_columns([_column(choice, stream)])
    except WrongInput:
        raise
    except Exception as error:  # a dozen libraries read a dozen formats from here on
        raise WrongInput(_sentence(choice, error)) from error


def _column(choice: DatasetChoice, stream) -> str:
    """The column that was named, or else guessed, among those that hold strings."""
    if stream.features is not None:
        names = list(stream.features)
        strings = [name for name in names if getattr(stream.features[name], "dtype", None) in _STRINGS]
    else:
        rows = list(stream.take(_SEARCHED_ROWS))
        names = list(dict.fromkeys(name for row in rows for name in row))
        strings = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    if not strings:
        columns = ", ".join(names) or "none"
        raise WrongInput(f"{choice} has no column of text (its columns: {columns}); choose another dataset or config.")
    column = choice.column or likeliest_first(strings)[0]
    if column not in strings:
        raise WrongInput(f"{choice} has no text column “{column}”; choose one of {', '.join(strings)}.")
    return column


def _arriving(rows: Iterator[dict], look_in: Callable[[], None], name: str) -> Generator[dict, None, None]:
    """`rows`, fetched in a thread of their own; `look_in` is called while none arrives, and may raise.

    Waiting for the hub cannot be interrupted, so the thread that waits is left behind instead.
    """
    arrived: queue.Queue[dict | Exception | None] = queue.Queue(_ROWS_AHEAD)
    left = threading.Event()

    def fetch() -> None:
        try:
            for row in rows:
                arrived.put(row)
                if left.is_set():
                    return
            arrived.put(None)
        except Exception as error:  # handed to the reader, who raises it
            arrived.put(error)

    threading.Thread(target=fetch, name=f"rows of {name}", daemon=True).start()
    heard = time.monotonic()
    try:
        while True:
            try:
                item = arrived.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                look_in()
                if time.monotonic() - heard > _SILENCE_SECONDS:
                    raise WrongInput(
                        f"{name} has sent nothing for {_SILENCE_SECONDS:.0f} seconds; try again later or take another."
                    ) from None
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            heard = time.monotonic()
            yield item
    finally:
        left.set()
        while not arrived.empty():  # the thread may be waiting for room
            arrived.get_nowait()


def _no_text(choice: DatasetChoice, column: str | None, characters: int) -> str:
    if characters:
        return (
            f"The first text in {choice} has {characters:,} characters, and at most {MAX_CHARACTERS:,} are read; "
            "choose another column or dataset."
        )
    where = f"Column “{column}” of {choice}" if column else str(choice)
    return f"{where} holds no text in its first {MAX_ROWS:,} rows; choose another column, split or dataset."


def _sentence(choice: DatasetChoice, error: Exception) -> str:
    """One sentence for what `datasets` raised; often only the words of the error say what was wrong."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    allowed = _listed(error)
    name = choice.name
    match error:
        case hub_errors.GatedRepoError() | DatasetNotFoundError() if "gated" in str(error):
            return f"{name} is gated: accept its terms on its hub page and sign in (set HF_TOKEN), then score again."
        case hub_errors.RepositoryNotFoundError() | DatasetNotFoundError():
            return (
                f"The hub has no public dataset “{name}”; check the spelling, or for a private one sign in (set "
                "HF_TOKEN)."
            )
        case EmptyDatasetError() | DataFilesNotFoundError():
            return f"{name} holds no file that can be read (jsonl, json, csv, parquet, txt); choose another dataset."
        case RuntimeError() if "scripts are no longer supported" in said:
            return (
                f"{name} would run code of its own (a loading script), which is not done here; choose a dataset that "
                "consists of data files."
            )
        case ValueError() if said.startswith("Bad split"):
            return f"{name} has no split “{choice.split}”; choose one of {allowed}."
        case ValueError() if said.startswith("BuilderConfig") and allowed:
            return f"{name} has no config “{choice.config}”; choose one of {allowed}."
        case ValueError() if said.startswith("Config name is missing"):
            return f"{name} has several configs, and none was named; choose one of {allowed}."
        case hub_errors.HfHubHTTPError() if getattr(error.response, "status_code", None):
            return f"The hub answered for {name} with status {error.response.status_code}; try again later."
        case hub_errors.HTTPError() | ConnectionError() | TimeoutError() | hub_errors.LocalEntryNotFoundError():
            offline = " (offline mode is on: HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
            return (
                f"The hub could not be reached{offline}, so {name} cannot be read; check the connection, or use a "
                "local folder or a bundled sample."
            )
        case UnicodeDecodeError():
            return f"{choice} is not UTF-8 text ({said}); choose a dataset or folder that is."
        case _:
            return f"{choice} cannot be read ({said}); choose another dataset, config or split."


def _listed(error: Exception) -> str:
    """The names that an error of `datasets` lists as available."""
    match = re.search(r"available[^:]*: (\[.*\])", str(error), re.IGNORECASE)
    try:
        return ", ".join(map(str, ast.literal_eval(match[1]))) if match else ""
    except (ValueError, SyntaxError):
        return match[1]
