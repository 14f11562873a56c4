"""From texts to rows of token ids: how a sequence begins, where it is cut, and how a model's chat template writes."""

import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from transact.errors import InvalidOption, InvalidText, seed_number, whole_number
from transact.models.isolated_tokenizer import PANIC, enclosed

AUTO = "auto"
_PROBE = "a"
_CHARACTERS_AT_ONCE = 500_000
"""A tokenizer keeps a hundred bytes and more for every token until it has read all texts of a call."""


@dataclass(frozen=True)
class Beginning:
    """The tokens in front of every sequence: `ids`, usually BOS alone or nothing.

    `tokenizer_adds`: whether the tokenizer itself puts something there; `names`: the ids in words.
    """

    ids: tuple[int, ...]
    tokenizer_adds: bool
    names: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, bos: bool | None = None) -> "Beginning":
        """As the tokenizer begins a sequence, with BOS in front (`bos=True`), or with nothing (`bos=False`).

        This is what `add_special_tokens=True` puts in front of a text, whether or not a BOS is defined; what it puts
        behind is left out. Raises `InvalidOption` for `bos=True` where the tokenizer has no BOS.
        """
        if bos not in (None, True, False):
            raise InvalidOption(f"bos is {bos!r}; give True, False, or None for what the tokenizer does by itself.")
        own = _put_in_front(tokenizer)
        ids, bos_id = own, tokenizer.bos_token_id
        if bos is False:
            ids = ()
        elif bos and bos_id is None:
            raise InvalidOption("This tokenizer has no BOS token. Leave bos out, or give bos=False.")
        elif bos and own[:1] != (bos_id,):
            ids = (bos_id, *own)
        names = "BOS" if ids == (bos_id,) else " ".join(map(str, tokenizer.convert_ids_to_tokens(list(ids))))
        return cls(ids, bool(own), names)

    def prepended_to(self, ids: Sequence[int]) -> list[int]:
        """The ids with the beginning in front; what the text has of it already is not repeated."""
        return [*self.ids, *self.without(ids)]

    def without(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids without as much of the beginning as the text itself starts with."""
        return ids[self.shared(ids) :]

    def shared(self, ids: Sequence[int]) -> int:
        """How many of the beginning's ids the text itself starts with."""
        pairs = enumerate(zip(ids, self.ids, strict=False))
        return next((index for index, (one, other) in pairs if one != other), min(len(ids), len(self.ids)))

    def described(self, unit: str) -> str:
        """For a protocol: "BOS in each window", or that there is none and why."""
        if self.ids:
            return f"{self.names} in each {unit}"
        return "no BOS (left out)" if self.tokenizer_adds else "no BOS (the tokenizer adds none)"


def _put_in_front(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    plain, whole = (_ids(tokenizer, [_PROBE], special=special)[0].tolist() for special in (False, True))
    if not plain:  # a vocabulary without this letter: only an EOS can be distinguished from the tokens in front
        return tuple(whole[:-1] if whole[-1:] == [tokenizer.eos_token_id] else whole)
    starts = range(len(whole) - len(plain) + 1)
    return tuple(whole[: next((start for start in starts if whole[start : start + len(plain)] == plain), 0)])


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, special: bool = False) -> list[array]:
    """The tokens of each text, with nothing in front or behind; `special`: with what the tokenizer puts there.

    Raises `InvalidText` for half a character, and where the tokenizer cannot read a text.
    """
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        raise InvalidText("The text holds half a character (a lone surrogate). Save it as UTF-8 again.") from None
    return _ids(tokenizer, texts, special=special)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool) -> list[array]:
    """As arrays: lists of numbers take ten times as much memory."""
    isolated = enclosed(tokenizer)
    if isolated is not None:
        return isolated.ids(texts, special=special)
    try:
        return [
            array("i", ids)
            for part in _parts(texts)
            for ids in tokenizer(part, add_special_tokens=special, verbose=False)["input_ids"]
        ]
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise InvalidText(
            f"The model's tokenizer gave up on the text ({str(error)[:200]}). Give other text, or another model."
        ) from error


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in parts of at most `_CHARACTERS_AT_ONCE` characters, or one text."""
    part: list[str] = []
    characters = 0
    for text in texts:
        if part and characters + len(text) > _CHARACTERS_AT_ONCE:
            yield part
            part, characters = [], 0
        part.append(text)
        characters += len(text)
    if part:
        yield part


@dataclass(frozen=True)
class Cutting:
    """How texts become rows of token ids; the fields are those of `CalibrationSet.from_texts`."""

    num_samples: int | None
    seq_len: int
    seed: int
    min_tokens: int = 1
    bos: bool | None = None
    windows: bool | str = False

    def texts(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> "CutTexts":
        """The rows that these texts give. Raises as `CalibrationSet.from_texts` does."""
        self._check(texts, tokenizer)
        filled = [text for text in texts if text.strip()]
        if not filled:
            raise InvalidText("The text is empty. Give some text.")
        beginning = Beginning.of(tokenizer, self.bos)
        bodies = [beginning.without(ids) for ids in encode(filled, tokenizer)]
        front, room = len(beginning.ids), self.seq_len - len(beginning.ids)
        windows = self._in_windows([front + len(body) for body in bodies])
        if windows and room < 1:
            raise InvalidText(
                f"Windows of {self.seq_len} tokens have no room behind {beginning.names}. Give a larger seq_len."
            )
        pieces = [piece for body in bodies for piece in (_windows(body, room) if windows else [body])]
        in_windows = len(pieces) > len(bodies)
        pieces = [piece for piece in pieces if min(front + len(piece), self.seq_len) >= self.least]
        if not pieces:
            raise InvalidText(f"None of the {len(texts)} texts has {self.least} tokens or more. Give longer text.")
        fronts = sum(max(math.ceil(len(body) / room), 1) for body in bodies) if windows else len(bodies)
        rows = [[*beginning.ids, *piece][: self.seq_len] for piece in self._sampled(pieces)]
        return CutTexts(rows, self, beginning, in_windows, sum(map(len, bodies)) + fronts * front)

    @property
    def least(self) -> int:
        """The fewest tokens of a row."""
        return max(self.min_tokens, 1)

    def _sampled(self, rows: list[Sequence[int]]) -> list[Sequence[int]]:
        if self.num_samples is None or len(rows) <= self.num_samples:
            return rows
        return [rows[index] for index in sorted(random.Random(self.seed).sample(range(len(rows)), self.num_samples))]

    def _check(self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None) -> None:
        for name in ("seq_len", "num_samples", "min_tokens"):
            if (value := getattr(self, name)) is not None:
                whole_number(value, name)
        seed_number(self.seed)
        if self.seq_len < 1 or (self.num_samples is not None and self.num_samples < 1):
            raise InvalidText(
                f"Sequence length {self.seq_len} and {self.num_samples} samples were asked for; both must be at least "
                "1."
            )
        if self.windows not in (False, True, AUTO):
            raise InvalidOption(f'windows is {self.windows!r}; give True, False or "{AUTO}".')
        if tokenizer is None:
            raise InvalidText("This model came without a tokenizer, so text cannot be read. Use from_token_ids.")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InvalidText("A list of texts is expected; for a single text use from_document.")

    def _in_windows(self, lengths: list[int]) -> bool:
        """Whether texts longer than `seq_len`, of these `lengths`, are cut into windows rather than cut off."""
        if self.windows != AUTO:
            return bool(self.windows)
        kept = [min(length, self.seq_len) for length in lengths]
        if self.num_samples is None:
            return 2 * sum(kept) < sum(lengths)
        return sum(length >= self.least for length in kept) < self.num_samples


@dataclass(frozen=True)
class CutTexts:
    """`rows` of token ids and how they were made: each with `begins` in front, some of a text `in_windows`.

    `available_tokens`: tokens of all rows where nothing is cut off, dropped or left out by sampling.
    """

    rows: list[list[int]]
    cutting: Cutting
    begins: Beginning
    in_windows: bool
    available_tokens: int

    def beginning(self, unit: str) -> str:
        """For a protocol: how each window or sequence begins."""
        return self.begins.described(unit)

    @property
    def length(self) -> str:
        """For a protocol: what happened to long and to short texts."""
        long = "longer ones in windows of" if self.in_windows else "cut at"
        dropped = f", under {self.cutting.least} tokens dropped" if self.cutting.least > 1 else ""
        return f"{long} {self.cutting.seq_len}{dropped}"


def _windows(ids: Sequence[int], size: int) -> list[Sequence[int]]:
    """Contiguous windows; an incomplete last one is dropped unless it is the only one."""
    return [ids[start : start + size] for start in range(0, max(len(ids) - size + 1, 1), size)]


def chat_texts(messages: Sequence[Sequence[dict]], tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """Each conversation as the model's own chat template writes it, special tokens spelled out.

    A conversation is a list of {"role": …, "content": …}, both text. Raises `InvalidText` where there is no template,
    for anything but such lists, and with the template's own reason where it refuses one (roles that it does not
    know or that do not alternate).
    """
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise InvalidText(
            "This model's tokenizer has no chat template, so the form of its conversations is unknown. Give plain "
            "texts, or take a model that was trained for chat."
        )
    if isinstance(messages, str | dict) or not messages:
        raise InvalidText('Give a list of conversations, each a list of {"role": "user", "content": "..."}.')
    for number, conversation in enumerate(messages, start=1):
        _check_conversation(number, conversation)
    isolated = enclosed(tokenizer)
    if isolated is None:
        return [_written(number, conversation, tokenizer) for number, conversation in enumerate(messages, start=1)]
    named = tokenizer.special_tokens_map.items()
    names = {name: list(map(str, value)) if isinstance(value, list) else str(value) for name, value in named}
    written = isolated.written([list(each) for each in messages], tokenizer.get_chat_template(), names)
    if isinstance(written, tuple):
        raise _cannot_be_written(*written)
    return written


def _check_conversation(number: int, conversation: Sequence[dict]) -> None:
    """Raise `InvalidText` for anything but a list of messages, each with text."""
    if not isinstance(conversation, list | tuple) or not conversation:
        raise InvalidText(
            f'Conversation {number} is no list of messages. Give lists of {{"role": "user", "content": "..."}}.'
        )
    for message in conversation:
        fields = message if isinstance(message, dict) else {}
        if not all(isinstance(fields.get(name), str) for name in ("role", "content")):
            raise InvalidText(
                f"Conversation {number} has a message without role or content as text (it has "
                f'{", ".join(map(repr, fields)) or type(message).__name__}). Give {{"role": "user", "content": "..."}}.'
            )


def _written(number: int, conversation: Sequence[dict], tokenizer: PreTrainedTokenizerBase) -> str:
    try:
        return tokenizer.apply_chat_template(list(conversation), tokenize=False)
    except Exception as error:  # templates are programs, which raise many types
        raise _cannot_be_written(number, str(error) or type(error).__name__) from error


def _cannot_be_written(number: int, why: str) -> InvalidText:
    return InvalidText(
        f"Conversation {number} cannot be written by this model's chat template ({' '.join(why.split())[:200]}). Give "
        "it roles in the order that the model was trained on."
    )
