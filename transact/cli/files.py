"""Files of the command line: texts, plans and locks are read into typed values, or refused in one sentence.

Writing never replaces a file, as with `transact.save`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from transact.assets import SAMPLES
from transact.errors import InvalidPlan, InvalidTarget, InvalidText, SaveRefused, TransactError
from transact.models.loaded_model import LoadedModel
from transact.spec.locks import Locks
from transact.spec.plan import PruningPlan
from transact.text.calibration import CalibrationSet
from transact.text.encoding import AUTO
from transact.text.held_out import hold_out
from transact.text.text_files import KINDS, read_prose, read_table
from transact.text.text_tables import MESSAGES, TEXT
from transact.text.tokens import EvaluationSet

_MAX_PLAN_BYTES, _MAX_SCORES_BYTES = 200_000_000, 2_000_000_000
"""Limits for plans and locks, and for scores: about ten times those of a model of 400 billion parameters."""
_SAMPLES = Path("assets/samples")
"""How the help, the README and the page name the folder of bundled samples."""
_Tokens = TypeVar("_Tokens", CalibrationSet, EvaluationSet)


@dataclass(frozen=True)
class Text:
    """Text of one file, named after it. `is_document`: one long text; `is_chat`: conversations as JSON text.

    Otherwise one sequence per text, or several where texts are long and few. `notes`: what was left out of the file.
    """

    name: str
    texts: tuple[str, ...]
    is_document: bool = False
    is_chat: bool = False
    notes: tuple[str, ...] = ()

    def tokens(self, kind: type[_Tokens], loaded: LoadedModel, *, bos: bool | None, **settings) -> _Tokens:
        """The text as a set of that kind; `settings` as `from_texts` and `from_document` take them.

        Raises `InvalidText` at once where a sample is longer than the model's context.
        """
        settings = {**settings, "name": self.name}
        if self.is_chat:
            tokens = kind.from_chats([json.loads(text) for text in self.texts], loaded.tokenizer, **settings)
        elif self.is_document:
            tokens = kind.from_document(self.texts[0], loaded.tokenizer, bos=bos, **settings)
        else:
            tokens = kind.from_texts(self.texts, loaded.tokenizer, bos=bos, windows=AUTO, **settings)
        tokens.check_fits(loaded)
        return tokens

    def hold_out(self, share: float) -> tuple["Text", "Text"]:
        """All but the last part of the text, and that part, see `transact.text.held_out`."""
        values = [json.loads(text) for text in self.texts] if self.is_chat else self.texts
        kept, held = hold_out(values, share)
        if self.is_chat:
            kept, held = ([json.dumps(value) for value in part] for part in (kept, held))
        return (
            replace(self, texts=tuple(kept)),
            replace(self, name=f"{self.name}, held out", texts=tuple(held), notes=()),
        )


def read_text(path: Path, column: str | None = None, *, chat: bool = False) -> Text:
    """A .txt file as one document; of a .jsonl, .json, .csv or .parquet file a text per row.

    `column`: the field that holds the text, "text" by default; with `chat` it may hold conversations, and "messages"
    comes before "text". Rows where it is null or empty are left out, which the result's `notes` report.

    `assets/samples/NAME.jsonl` is a bundled sample, in whatever folder this runs, unless there is a file of that path.

    Raises `InvalidText` for a file that is missing, of another kind, not UTF-8, or empty, and for a row without the
    column.
    """
    if path.suffix.lower() not in KINDS:
        raise InvalidText(f"{path} is not a kind of text that is read here. Give one of {', '.join(KINDS)}.")
    with _reading(path, InvalidText):
        path = _or_bundled(path)
        if path.suffix.lower() == ".txt":
            return Text(path.stem, (read_prose(path, str(path)),), is_document=True)
        columns = (column,) if column else (MESSAGES, TEXT) if chat else (TEXT,)
        table = read_table(path, str(path), columns=columns)
    cells = table.requested_column()
    problem = table.problem() if cells is None else cells.problem
    if cells is None or problem:
        raise InvalidText(f"{problem}. Name the field with --column{'' if chat else ', or read chats with --chat'}.")
    if cells.is_chat and not chat:
        raise InvalidText(f"{path} holds conversations. Read them with --chat, which takes the model's chat template.")
    left_out = f"{path}: rows without text, left out: {cells.skipped:,}."
    return Text(path.stem, cells.texts, is_chat=cells.is_chat, notes=(left_out,) if cells.skipped else ())


def read_plan(path: Path) -> PruningPlan:
    """A plan.json; raises `InvalidPlan`."""
    return PruningPlan.from_json(_content(path, InvalidPlan, _MAX_PLAN_BYTES))


def read_scores(path: Path) -> dict:
    """A file of the score command, for `ImportanceScores.from_dict`; raises `InvalidPlan`."""
    try:
        return json.loads(_content(path, InvalidPlan, _MAX_SCORES_BYTES))
    except (ValueError, RecursionError):
        raise InvalidPlan(f"{path} is not JSON. Give what the score command writes with --output.") from None


def read_locks(path: Path) -> Locks:
    """A JSON file as `Locks.to_dict` describes it; raises `InvalidTarget`."""
    try:
        values = json.loads(_content(path, InvalidTarget, _MAX_PLAN_BYTES))
    except (ValueError, RecursionError):
        raise InvalidTarget(f"{path} is not JSON. Give an object as {json.dumps(Locks().to_dict())}.") from None
    return Locks.from_dict(values)


def check_free(path: Path, *, folder: bool = False) -> None:
    """Raise `SaveRefused` now, rather than after all the work, if something is there already.

    An empty folder may take a checkpoint.
    """
    try:
        taken = path.exists() and not (folder and path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise SaveRefused(f"{path} cannot be written ({error}). Choose another place.") from None
    if taken:
        problem = "is not an empty folder" if folder else "would be overwritten"
        raise SaveRefused(f"{path} exists and {problem}. Choose a new name.")


def write_new(path: Path, content: str) -> None:
    """Write a new file, and the folders above it; raises `SaveRefused`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise SaveRefused(f"{path} could not be written ({error}). Choose another place.") from None


def _or_bundled(path: Path) -> Path:
    """The bundled sample that a path names, where there is no such file below the current folder."""
    if path.parent != _SAMPLES or path.exists():
        return path
    bundled = SAMPLES / path.name
    return bundled if bundled.is_file() else path


def _content(path: Path, refusal: type[TransactError], most: int) -> str:
    """The file's text without a byte order mark; raises `refusal`, also where it has more than `most` bytes."""
    with _reading(path, refusal), path.open("rb") as file:
        content = file.read(most + 1)  # rather than its size, which pipes and devices do not have
        if len(content) > most:
            raise refusal(f"{path} has more than {most // 1_000_000:,} MB, which no such file has. Give another file.")
        return content.decode("utf-8-sig")


@contextmanager
def _reading(path: Path, refusal: type[TransactError]) -> Iterator[None]:
    """Raise whatever prevents reading a file in the block as `refusal`."""
    try:
        yield
    except FileNotFoundError:
        raise refusal(f"There is no file {path}. Check its name.") from None
    except UnicodeDecodeError as error:
        raise refusal(f"{path} is not UTF-8 (byte {error.start:,} cannot be read). Save it as UTF-8.") from None
    except OSError as error:
        raise refusal(f"{path} cannot be read ({error.strerror}). Give another file.") from None
