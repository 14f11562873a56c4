"""Training text: token sequences in memory, or a dataset that is streamed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from transact.errors import InvalidText, whole_number
from transact.recovery.schedule import RecoverySettings
from transact.text.encoding import Beginning, encode
from transact.text.tokens import TokenSet

IGNORED = -100
"""The label of a position that the loss leaves out, as in `transformers`."""


@dataclass(frozen=True, eq=False)
class StreamedText:
    """Texts that are read during training, one after another, cut into windows of `seq_len` tokens.

    `texts` is iterated anew for every pass, so it may be a streamed dataset's column but not a generator. Each text and
    each window begins as the tokenizer begins a sequence, or as `bos` says (see `CalibrationSet.from_texts`). An
    interrupted training reads again up to where it stopped.
    """

    texts: Iterable[str]
    tokenizer: PreTrainedTokenizerBase
    seq_len: int
    name: str
    bos: bool | None = None

    def __post_init__(self):
        """Raise `InvalidOption` for an invalid length."""
        whole_number(self.seq_len, "seq_len", least=1)

    @classmethod
    def from_hub(
        cls,
        dataset: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        config: str | None = None,
        split: str = "train",
        column: str = "text",
        revision: str | None = None,
        seq_len: int = 4096,
    ) -> "StreamedText":
        """A Hugging Face dataset, streamed: nothing is stored. Raises `InvalidText` where it cannot be opened."""
        from datasets import load_dataset  # takes half a second to import, and only this needs it

        try:
            rows = load_dataset(dataset, config, split=split, revision=revision, streaming=True)
        except Exception as error:  # unknown names and network failures raise many types
            raise InvalidText(f"The dataset {dataset} ({split}) could not be opened: {error}") from error
        if rows.column_names is not None and column not in rows.column_names:
            raise InvalidText(f"{dataset} has no column {column!r}; it has {', '.join(rows.column_names)}.")
        return cls(_Column(rows, column), tokenizer, seq_len, f"{dataset} ({split})")

    def windows(self) -> Iterator[list[int]]:
        """Texts one after the other, cut into windows of `seq_len` tokens."""
        beginning = self._beginning
        room = self.seq_len - len(beginning.ids)
        if room < 1:
            raise InvalidText(
                f"Windows of {self.seq_len} tokens have no room behind {beginning.names}. Give a larger seq_len."
            )
        held: list[int] = []
        for text in self.texts:
            if text.strip():
                held += beginning.prepended_to(encode([text], self.tokenizer)[0])
            # a window that starts with a text has its beginning already, one that starts within a text has not
            while len(held) >= room + (begun := beginning.shared(held)):
                yield [*beginning.ids, *held[begun : begun + room]]
                del held[: begun + room]

    @property
    def protocol(self) -> str:
        """In words, how the texts become sequences."""
        return f"texts one after another, windows of {self.seq_len} tokens, {self._beginning.described('window')}"

    @property
    def _beginning(self) -> Beginning:
        return Beginning.of(self.tokenizer, self.bos)


TrainingText = TokenSet | StreamedText


@dataclass(frozen=True, eq=False)
class _Column:
    rows: Iterable[dict]
    name: str

    def __iter__(self) -> Iterator[str]:
        return (str(row[self.name]) for row in self.rows)


def tokens_per_sequence(text: TrainingText) -> float:
    """Real tokens of a sequence, on average."""
    return float(text.seq_len) if isinstance(text, StreamedText) else text.num_tokens / text.num_samples


def num_steps(tokens: int, text: TrainingText, settings: RecoverySettings) -> int:
    """Steps that `tokens` tokens take, rounded up."""
    return math.ceil(tokens / (tokens_per_sequence(text) * settings.batch_size))


def step_tokens(steps: int, text: TrainingText, settings: RecoverySettings) -> int:
    """Tokens of `steps` steps, by the mean length of a sequence."""
    return round(steps * tokens_per_sequence(text) * settings.batch_size)


def dataset_of(text: TrainingText) -> torch.utils.data.Dataset:
    """A dataset whose items are sequences of token ids."""
    return _Streamed(text) if isinstance(text, StreamedText) else _InMemory(text)


def collate(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """`input_ids` and `labels` [sequence, position], right-padded; padding and first tokens are not predicted."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    positions = torch.arange(width)
    predicted = (positions >= 1) & (positions < lengths[:, None])
    return {"input_ids": ids, "labels": ids.masked_fill(~predicted, IGNORED)}


class _InMemory(torch.utils.data.Dataset):
    def __init__(self, tokens: TokenSet):
        self.rows = [list(row) for row in tokens.rows()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[int]:
        return self.rows[index]


class _Streamed(torch.utils.data.IterableDataset):
    def __init__(self, text: StreamedText):
        self.text = text

    def __iter__(self) -> Iterator[list[int]]:
        return self.text.windows()
