"""Files at the edge: texts, plans and locks become typed values, or one sentence says why not.

What is written never replaces anything, as with `transact.save`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from transact.calibration import CalibrationSet, EvaluationSet
from transact.errors import InvalidPlan, InvalidTarget, InvalidText, SaveRefused, TransactError
from transact.loading import LoadedModel
from transact.locks import Locks
from transact.plan import PruningPlan

_Tokens = TypeVar("_Tokens", CalibrationSet, EvaluationSet)


@dataclass(frozen=True)
class Text:
    """Text of one file, named after it. `is_document`: one long text; otherwise one sequence per text."""

    name: str
    texts: tuple[str, ...]
    is_document: bool

    def tokens(self, kind: type[_Tokens], loaded: LoadedModel, **settings) -> _Tokens:
        """The text as a set of that kind; `settings` as `from_texts` and `from_document` take them."""
        if self.is_document:
            return kind.from_document(self.texts[0], loaded.tokenizer, name=self.name, **settings)
        return kind.from_texts(self.texts, loaded.tokenizer, name=self.name, **settings)


def read_text(path: Path, column: str) -> Text:
    """A .txt file as one document, a .jsonl file as one text per line, taken from `column`.

    Raises `InvalidText` for a file that is missing, of another kind, not UTF-8, empty, or without the column.
    """
    kind = path.suffix.lower()
    if kind not in (".txt", ".jsonl"):
        raise InvalidText(f"{path} ends in neither .txt nor .jsonl. Give one of these, in UTF-8.")
    content = _content(path, InvalidText)
    if not content.strip():
        raise InvalidText(f"{path} is empty. Give a file with some text in it.")
    if kind == ".txt":
        return Text(path.stem, (content,), is_document=True)
    # only \n ends a line: str.splitlines would also cut at characters that JSON allows inside a text
    lines = [(number, line) for number, line in enumerate(content.split("\n"), start=1) if line.strip()]
    return Text(path.stem, tuple(_column(path, number, line, column) for number, line in lines), is_document=False)


def read_plan(path: Path) -> PruningPlan:
    """A plan.json; raises `InvalidPlan`."""
    return PruningPlan.from_json(_content(path, InvalidPlan))


def read_locks(path: Path) -> Locks:
    """A JSON file as `Locks.to_dict` describes it; raises `InvalidTarget`."""
    try:
        values = json.loads(_content(path, InvalidTarget))
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
        wanted = "is not an empty folder" if folder else "would be overwritten"
        raise SaveRefused(f"{path} exists and {wanted}. Choose a new name.")


def write_new(path: Path, content: str) -> None:
    """Write a new file, and the folders above it; raises `SaveRefused`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(content)
    except OSError as error:
        raise SaveRefused(f"{path} could not be written ({error}). Choose another place.") from None


def _content(path: Path, refusal: type[TransactError]) -> str:
    """The file's text without a byte order mark; raises `refusal`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise refusal(f"There is no file {path}. Check its name.") from None
    except UnicodeDecodeError as error:
        raise refusal(f"{path} is not UTF-8 (byte {error.start:,} cannot be read). Save it as UTF-8.") from None
    except OSError as error:
        raise refusal(f"{path} cannot be read ({error.strerror}). Give another file.") from None


def _column(path: Path, number: int, line: str, column: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidText(f'Line {number} of {path} is not JSON. Every line must be as {{"text": "..."}}.') from None
    if not isinstance(row, dict) or not isinstance(row.get(column), str):
        found = ", ".join(map(repr, row)) if isinstance(row, dict) else "no object"
        raise InvalidText(
            f"Line {number} of {path} has no text under {column!r} (it has {found}). Name the field with --column."
        )
    return row[column]
