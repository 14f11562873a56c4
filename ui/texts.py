"""Text at the edge: a bundled sample, a paste or an upload becomes a checked `TextSource`.

Below this module text is a value with a name; nothing further down looks at files or boxes again.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow
from pyarrow import parquet

import transact as ta
from ui.errors import WrongInput
from ui.theme import ASSETS

SAMPLES = {
    "mixed": "A bit of everything (mixed)",
    "stories": "Children's stories",
    "addition": "Addition of two numbers",
    "recall": "Recalling values by key",
    "brackets": "Nested brackets",
    "code": "A small code-like language",
}
SAMPLE_DIRECTORY = ASSETS / "samples"
MAX_UPLOAD_BYTES = 20_000_000
MAX_PASTE_CHARACTERS = 2_000_000
_MAX_UNPACKED_BYTES = 200_000_000
_KINDS = (".txt", ".jsonl", ".csv", ".parquet")
_CHARACTERS_PER_TOKEN = 4
"""A cautious guess that only decides how a paste is read: as paragraphs or as one long text."""


@dataclass(frozen=True)
class TextSource:
    """Named text. `is_document`: one long text that is cut into windows; otherwise one sequence per text.

    `origin` says where it came from: a bundled "sample", a bundled "evaluation" set, "pasted", or a "file".
    """

    name: str
    texts: tuple[str, ...]
    origin: Literal["sample", "evaluation", "pasted", "file"]
    is_document: bool = False


def sample(name: str) -> TextSource:
    """A bundled calibration sample; `name` is a key of `SAMPLES`."""
    return TextSource(name, _bundled(name, f"{name}.jsonl"), "sample")


def evaluation_sample(name: str) -> TextSource:
    """The bundled held-out text of the same kind as the sample `name`."""
    return TextSource(name, _bundled(name, f"evaluation_{name}.jsonl"), "evaluation")


def pasted(text: str, seq_len: int) -> TextSource:
    """Text from the page: paragraphs are sequences, unless one is longer than a window, or there is only one.

    Raises `WrongInput` when it is empty or too long.
    """
    stripped = text.strip()
    if not stripped:
        raise WrongInput("The text is empty; paste at least a sentence, upload a file or choose a bundled sample.")
    if len(stripped) > MAX_PASTE_CHARACTERS:
        raise WrongInput(
            f"The pasted text has {len(stripped):,} characters; at most {MAX_PASTE_CHARACTERS:,} are taken. "
            "Paste less, or upload it as a file."
        )
    return _from_prose(stripped, "pasted text", "pasted", seq_len)


def text_columns(path: str | Path) -> tuple[str, ...]:
    """The columns of an upload that hold text, best guess first; empty for .txt, which has none."""
    file = _checked(path)
    if file.suffix.lower() == ".txt":
        _utf8(file)
        return ()
    frame = _frame(file)
    names = [str(name) for name in frame.columns if _holds_text(frame[name])]
    if not names:
        found = ", ".join(str(name) for name in frame.columns) or "none"
        raise WrongInput(f"{file.name} has no column of text (its columns: {found}); add one, for example “text”.")
    return tuple(sorted(names, key=lambda name: name.lower() != "text"))


def uploaded(path: str | Path, column: str | None, seq_len: int) -> TextSource:
    """The text in an uploaded .txt, .jsonl, .csv or .parquet file.

    Raises `WrongInput` when the file is too large, not UTF-8, empty, or has no such column of text.
    """
    file = _checked(path)
    if file.suffix.lower() == ".txt":
        content = _utf8(file).strip()
        if not content:
            raise WrongInput(f"{file.name} is empty; upload a file with at least a sentence in it.")
        return _from_prose(content, file.name, "file", seq_len)
    names = text_columns(file)
    column = column or names[0]
    if column not in names:
        raise WrongInput(f"{file.name} has no text column “{column}”; choose one of {', '.join(names)}.")
    texts = tuple(text for text in _frame(file)[column] if isinstance(text, str) and text.strip())
    return TextSource(file.name, texts, "file")


def calibration_set(
    source: TextSource, loaded: ta.LoadedModel, *, num_samples: int, seq_len: int, seed: int
) -> ta.CalibrationSet:
    """Tokens of `source` for scoring `loaded`."""
    tokenizer = _tokenizer(loaded)
    if source.is_document:
        return ta.CalibrationSet.from_document(
            source.texts[0], tokenizer, num_samples=num_samples, seq_len=seq_len, seed=seed, name=source.name
        )
    return ta.CalibrationSet.from_texts(
        source.texts, tokenizer, num_samples=num_samples, seq_len=seq_len, seed=seed, name=source.name
    )


def evaluation_set(source: TextSource, loaded: ta.LoadedModel, *, seq_len: int) -> ta.EvaluationSet:
    """Tokens of `source` for measuring `loaded`."""
    tokenizer = _tokenizer(loaded)
    if source.is_document:
        return ta.EvaluationSet.from_document(source.texts[0], tokenizer, seq_len=seq_len, name=source.name)
    return ta.EvaluationSet.from_texts(source.texts, tokenizer, seq_len=seq_len, name=source.name)


def as_jsonl(source: TextSource) -> str:
    """The texts in the form of the bundled samples, one {"text": …} a line."""
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in source.texts)


def _tokenizer(loaded: ta.LoadedModel):
    if loaded.tokenizer is None:
        raise WrongInput(f"{loaded.source} comes without a tokenizer; choose a model folder that holds one.")
    return loaded.tokenizer


def _bundled(name: str, filename: str) -> tuple[str, ...]:
    if name not in SAMPLES:
        raise WrongInput(f"There is no bundled text “{name}”; choose one of {', '.join(SAMPLES)}.")
    lines = (SAMPLE_DIRECTORY / filename).read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines if line)


def _from_prose(text: str, name: str, origin: Literal["pasted", "file"], seq_len: int) -> TextSource:
    paragraphs = tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())
    longest = max(len(part) for part in paragraphs)
    if len(paragraphs) == 1 or longest > seq_len * _CHARACTERS_PER_TOKEN:
        return TextSource(name, (text,), origin, is_document=True)
    return TextSource(name, paragraphs, origin)


def _checked(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix.lower() not in _KINDS:
        raise WrongInput(f"{file.name} is not a kind that is read here; upload one of {', '.join(_KINDS)}.")
    length = file.stat().st_size
    if length > MAX_UPLOAD_BYTES:
        raise WrongInput(
            f"{file.name} has {length / 1e6:.0f} MB; at most {MAX_UPLOAD_BYTES / 1e6:.0f} MB are taken. "
            "A few hundred texts are enough: upload a part of it."
        )
    if length == 0:
        raise WrongInput(f"{file.name} is empty; upload a file with at least a sentence in it.")
    return file


def _utf8(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongInput(
            f"{file.name} is not UTF-8 text (byte {error.start:,} cannot be read); save it as UTF-8 and upload again."
        ) from None


def _frame(file: Path) -> pd.DataFrame:
    match file.suffix.lower():
        case ".jsonl":
            return pd.DataFrame(list(_json_lines(file)))
        case ".csv":
            _utf8(file)
            return _read(file, lambda: pd.read_csv(file, dtype=str, encoding="utf-8-sig"))
        case _:
            return _read(file, lambda: _parquet(file))


def _json_lines(file: Path) -> Iterator[dict]:
    for number, line in enumerate(_utf8(file).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise WrongInput(f"Line {number} of {file.name} is not JSON; every line must be an object.") from None
        if not isinstance(row, dict):
            raise WrongInput(f'Line {number} of {file.name} is not an object such as {{"text": "…"}}.')
        yield row


def _parquet(file: Path) -> pd.DataFrame:
    groups = parquet.ParquetFile(file)
    unpacked = sum(groups.metadata.row_group(i).total_byte_size for i in range(groups.num_row_groups))
    if unpacked > _MAX_UNPACKED_BYTES:
        raise WrongInput(f"{file.name} unpacks to {unpacked / 1e6:.0f} MB; upload a part of it.")
    return groups.read().to_pandas()


def _read(file: Path, reader) -> pd.DataFrame:
    try:
        return reader()
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WrongInput(f"{file.name} cannot be read as {file.suffix[1:]} ({reason}).") from None


def _holds_text(column: pd.Series) -> bool:
    return any(isinstance(value, str) and value.strip() for value in column.head(1000))
