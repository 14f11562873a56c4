"""Texts as token sequences: what all of them have in common, and those that a model is measured on.

Sequences are kept right-padded. In a causal model no real token ever sees the padding to its right, so
neither a score nor a loss depends on batch size or padding; padding on the left is moved.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch
from transformers import PreTrainedTokenizerBase

from transact.errors import InvalidText, whole_number
from transact.models.loaded_model import Batch
from transact.spec.digest import digest
from transact.spec.model_spec import ModelSpec
from transact.text.encoding import CutTexts, Cutting, chat_texts
from transact.wording import counted

if TYPE_CHECKING:
    from transact.models.loaded_model import LoadedModel


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Token sequences and their origin.

    `input_ids` int64 [sample, seq] and `attention_mask` bool [sample, seq], right-padded; `protocol` says in
    words how the texts became sequences. `available_tokens`: those of the texts where nothing is left out, with
    those in front of each sequence; `requested_samples`: the most that were asked for. None where unknown.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    name: str
    seed: int | None
    protocol: str
    available_tokens: int | None = None
    requested_samples: int | None = None

    @classmethod
    def from_token_ids(
        cls, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, name: str = "token ids"
    ) -> Self:
        """Take token ids as they are: no BOS is added, nothing is cut.

        `input_ids` int64 [sample, seq] (a nested list will do); `attention_mask` [sample, seq], nonzero for
        real tokens, padding on either side. Raises `InvalidText` for an empty set, a wrong shape, or a mask
        with a hole.
        """
        try:
            ids = torch.as_tensor(input_ids)
        except (ValueError, TypeError, RuntimeError) as error:
            raise InvalidText(f"Token ids must be whole numbers of shape [sample, seq] ({error}).") from None
        if ids.ndim != 2 or ids.numel() == 0 or ids.is_floating_point():
            raise InvalidText(f"Token ids must be whole numbers of shape [sample, seq], not {list(ids.shape)}.")
        if attention_mask is None:
            return cls.from_sequences(ids.tolist(), name=name)
        mask = torch.as_tensor(attention_mask).bool()
        if mask.shape != ids.shape:
            raise InvalidText(f"The mask has shape {list(mask.shape)}, the token ids {list(ids.shape)}.")
        # a row whose real tokens are contiguous changes between real and padding at most twice
        edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff(dim=1).abs().sum(dim=1)
        if int(edges.max()) > 2:
            raise InvalidText("A mask has padding between real tokens; padding may stand at the ends only.")
        rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        return cls.from_sequences([row for row in rows if row], name=name)

    @classmethod
    def from_document(
        cls,
        text: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seq_len: int = 512,
        num_samples: int | None = None,
        seed: int = 0,
        bos: bool | None = None,
        name: str = "document",
    ) -> Self:
        """One long text, tokenised once and cut into contiguous windows of `seq_len` tokens.

        Every window begins as the model's own tokenizer begins a sequence (`bos` as in `from_texts`), so it holds
        `seq_len` tokens less those in front. An incomplete last window is dropped unless it is the only one, as is
        usual for WikiText-2. With `num_samples`, that many windows are sampled with `seed`. Raises `InvalidText` for
        empty text.
        """
        if not isinstance(text, str):
            raise InvalidText("One text is expected; for a list of texts use from_texts.")
        cut = Cutting(num_samples, seq_len, seed, bos=bos, windows=True).texts([text], tokenizer)
        return cls._of(cut, name, f"one document, contiguous windows of {seq_len} tokens, {cut.beginning('window')}")

    @classmethod
    def _from_texts(
        cls, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None, cutting: Cutting, name: str
    ) -> Self:
        cut = cutting.texts(texts, tokenizer)
        return cls._of(cut, name, f"each text one sequence, {cut.beginning('sequence')}, {cut.length}")

    @classmethod
    def _from_chats(
        cls, messages: Sequence[Sequence[dict]], tokenizer: PreTrainedTokenizerBase, cutting: Cutting, name: str
    ) -> Self:
        cut = cutting.texts(chat_texts(messages, tokenizer), tokenizer)
        return cls._of(cut, name, f"each conversation one sequence, by the model's chat template, {cut.length}")

    @classmethod
    def _of(cls, cut: CutTexts, name: str, protocol: str) -> Self:
        tokens = cls.from_sequences(cut.rows, name=name, seed=cut.cutting.seed, protocol=protocol)
        return replace(tokens, available_tokens=cut.available_tokens, requested_samples=cut.cutting.num_samples)

    @classmethod
    def from_sequences(
        cls, rows: Sequence[Sequence[int]], *, name: str, seed: int | None = None, protocol: str = "token ids as given"
    ) -> Self:
        """Token ids of different lengths as they are; raises `InvalidText` for none or a negative one."""
        if not rows or not all(rows):
            raise InvalidText("There is no token to work with. Give some text.")
        width = max(map(len, rows))
        # padded with tokens of the text: another id could bring NaN into sums that leave it out
        ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], dtype=torch.int64)
        mask = torch.zeros((len(rows), width), dtype=torch.bool)
        for index, row in enumerate(rows):
            mask[index, : len(row)] = True
        if int(ids.min()) < 0:
            raise InvalidText("A token id is negative. Token ids run from 0 to the vocabulary size less one.")
        return cls(ids, mask, name, seed, protocol)

    @property
    def num_samples(self) -> int:
        return self.input_ids.shape[0]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Real tokens of each sample."""
        return tuple(self.attention_mask.sum(dim=1).tolist())

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @property
    def num_predictions(self) -> int:
        """Next-token predictions: all tokens but the first of each sample."""
        return sum(length - 1 for length in self.lengths)

    @property
    def amount(self) -> str:
        """For messages: how much is read, and of how much where some of the text is left out."""
        return amount_read(self.num_samples, self.num_tokens, self.available_tokens)

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the text with what to do about them; empty where there are none."""
        actual, requested, available = self.num_samples, self.requested_samples, self.available_tokens
        if available is None or (requested is not None and actual >= requested):
            return ()
        notes = []
        if requested is not None:
            notes.append(f"{requested:,} samples were asked for and the text gives {actual:,}. Give more text.")
        if 2 * self.num_tokens < available:
            notes.append(
                f"Only {self.num_tokens:,} of the text's {available:,} tokens are used; the rest lies beyond the end "
                'of a sample. Cut long texts into windows (from_document, or windows="auto"), or give a larger seq_len.'
            )
        return tuple(notes)

    def rows(self) -> Iterator[tuple[int, ...]]:
        """The token ids of each sample, without padding."""
        for row, length in zip(self.input_ids.tolist(), self.lengths, strict=True):
            yield tuple(row[:length])

    def first(self, count: int) -> Self:
        """The first `count` samples (at least one), or all where there are no more."""
        count = max(whole_number(count, "count"), 1)
        if count >= self.num_samples:
            return self
        return replace(
            self, input_ids=self.input_ids[:count], attention_mask=self.attention_mask[:count],
            protocol=f"{self.protocol}, the first {count}", available_tokens=None,
            requested_samples=None,
        )  # fmt: skip

    def longest(self, count: int) -> Self:
        """The `count` longest samples (at least one), in the order of the set: those that batches begin with."""
        count = max(whole_number(count, "count"), 1)
        if count >= self.num_samples:
            return self
        indices = sorted(self.by_length[:count])
        width = self.lengths[self.by_length[0]]
        return replace(
            self, input_ids=self.input_ids[indices, :width], attention_mask=self.attention_mask[indices, :width],
            protocol=f"{self.protocol}, the longest {count}", available_tokens=None, requested_samples=None,
        )  # fmt: skip

    @cached_property
    def by_length(self) -> tuple[int, ...]:
        """The indices of the samples, longest first, of equal ones the earlier."""
        return tuple(sorted(range(self.num_samples), key=lambda index: -self.lengths[index]))

    def up_to(self, num_tokens: int) -> Self:
        """The first samples, as many as have together at most so many tokens, and at least one."""
        left, count = whole_number(num_tokens, "num_tokens", least=1), 0
        for length in self.lengths:
            left -= length
            if left < 0:
                break
            count += 1
        return self.first(count)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the token ids, whatever the set is called."""
        return digest(repr(list(self.rows())))

    def batches(self, *, batch_size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        """Batches of samples of like length, longest first, so that little is padded and memory peaks early.

        At most `batch_size` samples and, where given, `max_tokens` positions (one sample always fits).
        """
        batch_size = whole_number(batch_size, "batch_size", least=1)
        if max_tokens is not None:
            max_tokens = whole_number(max_tokens, "max_tokens", least=1)
        order, start = self.by_length, 0
        while start < len(order):
            width = self.lengths[order[start]]
            size = batch_size if max_tokens is None else max(1, min(batch_size, max_tokens // width))
            indices = order[start : start + size]
            yield Batch(self.input_ids[indices, :width], self.attention_mask[indices, :width], tuple(indices))
            start += size

    def check_fits(self, loaded: "LoadedModel") -> None:
        """Raise `InvalidText` for tokens outside the model's vocabulary and samples longer than its context."""
        self.check_vocabulary(loaded.spec.vocab_size, loaded.tokenizer)
        check_length(max(self.lengths), loaded.spec)

    def check_vocabulary(self, vocab_size: int, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Raise `InvalidText` if a token id is not in a vocabulary of this size; `tokenizer` is the model's own."""
        check_ids(int(self.input_ids.max()), vocab_size, tokenizer)


class EvaluationSet(TokenSet):
    """Text that a model is measured on; takes all texts by default."""

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        seq_len: int = 512,
        num_samples: int | None = None,
        seed: int = 0,
        min_tokens: int = 1,
        bos: bool | None = None,
        windows: bool | str = False,
        name: str = "texts",
    ) -> Self:
        """As `CalibrationSet.from_texts`; a text must have 2 tokens for a prediction to be measured."""
        return cls._from_texts(texts, tokenizer, Cutting(num_samples, seq_len, seed, min_tokens, bos, windows), name)

    @classmethod
    def from_chats(
        cls,
        messages: Sequence[Sequence[dict]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        seq_len: int = 512,
        num_samples: int | None = None,
        seed: int = 0,
        min_tokens: int = 1,
        name: str = "chats",
    ) -> Self:
        """As `CalibrationSet.from_chats`."""
        cutting = Cutting(num_samples, seq_len, seed, min_tokens, bos=False)
        return cls._from_chats(messages, tokenizer, cutting, name)

    def overlap(self, calibration: TokenSet) -> float:
        """Share of these samples that are also in the calibration set, token for token."""
        seen = set(calibration.rows())
        return sum(row in seen for row in self.rows()) / self.num_samples


def amount_read(num_samples: int, num_tokens: int, available_tokens: int | None) -> str:
    """For messages: how much is read, and of how much where some of the text is left out."""
    left_out = available_tokens is not None and available_tokens > num_tokens
    whole = f" (of {available_tokens:,})" if left_out else ""
    return f"{counted(num_samples, 'sequence')}, {counted(num_tokens, 'token')}{whole}"


def check_length(num_tokens: int, spec: ModelSpec) -> None:
    """Raise `InvalidText` for a sample longer than the model's context.

    Learned positions end there; rotary ones do not, but were never trained beyond it, and would silently give
    meaningless numbers.
    """
    context = spec.max_position_embeddings
    if num_tokens > context:
        raise InvalidText(
            f"A sample has {num_tokens:,} tokens and the model's context is {context:,}. Give a seq_len of at most "
            f"{context}."
        )


def check_ids(largest: int, vocab_size: int, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raise `InvalidText` for a token id beyond an embedding of that size; `tokenizer` is the model's own."""
    if largest < vocab_size:
        return
    if tokenizer is not None and largest < len(tokenizer):
        raise InvalidText(
            f"Token id {largest} ({tokenizer.decode([largest]).strip()!r}) is of this model's own tokenizer, to "
            f"which it was added, but the embedding has {vocab_size} rows alone. Leave the token out of the text, or "
            "give the model a row for it first (model.resize_token_embeddings(len(tokenizer))) and save it."
        )
    raise InvalidText(
        f"Token id {largest} is not in the model's vocabulary of {vocab_size}. Tokenise the text with this model's own "
        "tokenizer."
    )
