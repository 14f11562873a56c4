"""Text as a value with a name: a bundled sample, a paste, a file or rows of a dataset become a checked `TextSource`.

Below this module nothing looks at files, boxes or the hub again.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import transact as ta
from transact.text.text_tables import MESSAGES, TEXT
from ui.errors import WrongInput
from ui.format.theme import ASSETS
from ui.server import limits

SAMPLES = {
    "mixed": "A bit of everything (mixed)",
    "stories": "Children's stories",
    "addition": "Addition of two numbers",
    "recall": "Recalling values by key",
    "brackets": "Nested brackets",
    "code": "A small code-like language",
}
SAMPLE_DIRECTORY = ASSETS / "samples"
EVALUATION_TOKENS = 512
"""Longest sequence that is measured; the bundled model's context."""
LEAST_HELD_OUT = 400
"""Characters; less would measure next to nothing."""
_CHARACTERS_PER_TOKEN = 4
"""A cautious guess that only decides how a paste is read: as paragraphs or as one long text."""


@dataclass(frozen=True)
class DatasetChoice:
    """A column of a split of a Hugging Face dataset; `name` is a hub id or a local folder.

    Without `config` the dataset's default one, without `column` the one that looks like the text. `revision`: the
    commit that was read, None for a folder and for what is not read yet.
    """

    name: str
    config: str | None = None
    split: str = "train"
    column: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(part for part in (self.config, self.split) if part)})"


@dataclass(frozen=True)
class TextSource:
    """Named text. `is_document`: one long text that is cut into windows; `is_chat`: conversations, each as JSON text.
    Otherwise one sequence per text, or several where texts are long and few. `skipped`: rows of a file without text.

    `held_out`: the share of the end of another text that this is, where the rest of that scores.

    `origin` says where it came from: a bundled "sample", a bundled "evaluation" set, "pasted", a "file", or a
    "dataset", whose first rows that hold text it is, as many as there are `texts`; `dataset` then says which. Of the
    text that scored a model of the "gallery" there is the name alone.
    """

    name: str
    texts: tuple[str, ...]
    origin: Literal["sample", "evaluation", "pasted", "file", "dataset", "gallery"]
    is_document: bool = False
    dataset: DatasetChoice | None = None
    is_chat: bool = False
    skipped: int = 0
    held_out: float = 0.0

    @property
    def is_bundled(self) -> bool:
        return self.origin in ("sample", "evaluation")

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))

    def beginning(self, characters: int) -> "TextSource":
        """The first of the texts, all where they are not longer than that; of one that is, its own beginning."""
        kept, left = [], characters
        for text in self.texts:
            if len(text) > left:
                break
            kept.append(text)
            left -= len(text)
        if len(kept) == len(self.texts):
            return self
        first = self.texts[0] if self.is_chat else self.texts[0][:characters]
        return replace(self, texts=tuple(kept) or (first,))

    @property
    def values(self) -> list:
        """The texts as the library takes them: text, or lists of messages."""
        return [json.loads(text) for text in self.texts] if self.is_chat else list(self.texts)

    def read(self, progress: ta.Progress) -> "TextSource":
        """The text itself, which is in hand already."""
        return self


class TextRequest(Protocol):
    """Text that was asked for: in hand, as a `TextSource` is, or to be fetched by the job that needs it."""

    @property
    def name(self) -> str: ...

    def read(self, progress: ta.Progress) -> TextSource:
        """Fetch the text. Raises `WrongInput` with the reason where it cannot be had."""


def is_sample(name) -> bool:
    """Whether that is the name of a bundled sample, whatever else it may be."""
    return isinstance(name, str) and name in SAMPLES


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
    stripped = limits.text("The text", text, limits.MAX_PASTE_CHARACTERS).strip()
    if not stripped:
        raise WrongInput("The text is empty; paste at least a sentence, upload a file or choose a bundled sample.")
    return from_prose(stripped, "pasted text", "pasted", seq_len)


def from_prose(text: str, name: str, origin: Literal["pasted", "file"], seq_len: int) -> TextSource:
    """Prose as paragraphs, or as one document where a paragraph would not fit in `seq_len` tokens."""
    paragraphs = tuple(part.strip() for part in re.split(r"\n\s*\n", text) if part.strip())
    longest = max(len(part) for part in paragraphs)
    if len(paragraphs) == 1 or longest > seq_len * _CHARACTERS_PER_TOKEN:
        return TextSource(name, (text,), origin, is_document=True)
    return TextSource(name, paragraphs, origin)


def parts(source: TextSource, share: float) -> tuple[TextSource, TextSource | None]:
    """What scores, and the last `share` of it, which is held out for measuring.

    All of it scores, and the second is None, for a bundled text, which has a held-out text of its own, and for one that
    is too short.
    """
    if not share or source.is_bundled:
        return source, None
    try:
        kept, held = ta.hold_out(source.values, share)
    except ta.InvalidText:
        return source, None
    if source.is_chat:  # whole ones
        kept, held = list(source.texts[: len(kept)]), list(source.texts[len(kept) :])
    measuring = replace(source, name=f"{source.name}, held out", texts=tuple(held), skipped=0, held_out=share)
    if measuring.characters < LEAST_HELD_OUT:
        return source, None
    return replace(source, texts=tuple(kept)), measuring


def calibration_set(
    source: TextSource, loaded: ta.LoadedModel, *, num_samples: int | None, seq_len: int, seed: int = 0,
    windows: bool | str = "auto",
) -> ta.CalibrationSet:  # fmt: skip
    """Tokens of `source` for scoring `loaded`; `windows`: whether long texts are cut into several, see the library."""
    settings = {"num_samples": num_samples, "seq_len": seq_len, "seed": seed, "windows": windows}
    return _tokens(ta.CalibrationSet, source, loaded, **settings)


def evaluation_set(
    source: TextSource, loaded: ta.LoadedModel, *, seq_len: int, num_samples: int | None = None
) -> ta.EvaluationSet:
    """Tokens of `source` for measuring `loaded`; all of it by default."""
    return _tokens(ta.EvaluationSet, source, loaded, num_samples=num_samples, seq_len=seq_len)


def _tokens(kind, source: TextSource, loaded: ta.LoadedModel, *, windows: bool | str = "auto", **settings):
    """As the shown Python lines do it."""
    tokenizer = _tokenizer(loaded)
    settings = {**settings, "name": source.name}
    if source.is_document:
        return kind.from_document(source.texts[0], tokenizer, **settings)
    if source.is_chat:
        return kind.from_chats(source.values, tokenizer, **settings)
    return kind.from_texts(source.texts, tokenizer, windows=windows, **settings)


def as_jsonl(source: TextSource) -> str:
    """The texts in the form of the bundled samples, one {"text": …} a line; conversations as {"messages": …}."""
    field = field_of(source)
    return "".join(json.dumps({field: value}, ensure_ascii=False) + "\n" for value in source.values)


def field_of(source: TextSource) -> str:
    """What `as_jsonl` writes the texts under."""
    return MESSAGES if source.is_chat else TEXT


def _tokenizer(loaded: ta.LoadedModel):
    if loaded.tokenizer is None:
        raise WrongInput(f"{loaded.source} comes without a tokenizer; choose a model folder that holds one.")
    return loaded.tokenizer


def _bundled(name: str, filename: str) -> tuple[str, ...]:
    limits.one_of("bundled text", name, SAMPLES)
    lines = (SAMPLE_DIRECTORY / filename).read_text(encoding="utf-8").split("\n")
    return tuple(json.loads(line)["text"] for line in lines if line)
