"""Texts as token sequences: what a model is scored on and what it is measured on.

Sequences are kept right-padded. In a causal model no real token ever sees the padding to its right, so
neither a score nor a loss depends on batch size or padding; padding that came in on the left is moved.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch
from transformers import PreTrainedTokenizerBase

from transact.errors import InvalidText
from transact.progress import NO_PROGRESS, Progress
from transact.spec import digest

if TYPE_CHECKING:
    from transact.loading import LoadedModel


@dataclass(frozen=True)
class Batch:
    """`input_ids` int64 [sample, seq], right-padded; `mask` bool [sample, seq], True = real token."""

    input_ids: torch.Tensor
    mask: torch.Tensor
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Token sequences with where they came from.

    `input_ids` int64 [sample, seq] and `attention_mask` bool [sample, seq], right-padded; `protocol` says in
    words how the texts became sequences.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    name: str
    seed: int | None
    protocol: str

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
    def _from_texts(
        cls,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        num_samples: int | None,
        seq_len: int,
        seed: int,
        min_tokens: int,
        name: str,
    ) -> Self:
        _check_lengths(seq_len, num_samples)
        rows = [row for row in _encode_filled(texts, tokenizer, seq_len) if len(row) >= max(min_tokens, 1)]
        if not rows:
            raise InvalidText(
                f"None of the {len(texts)} texts has {max(min_tokens, 1)} tokens or more. Give longer text."
            )
        if num_samples is not None and len(rows) > num_samples:
            chosen = sorted(random.Random(seed).sample(range(len(rows)), num_samples))
            rows = [rows[index] for index in chosen]
        protocol = (
            f"each text one sequence, {'BOS + ' if tokenizer.bos_token_id is not None else ''}tokens, cut at "
            f"{seq_len}, under {max(min_tokens, 1)} tokens dropped"
        )
        return cls.from_sequences(rows, name=name, seed=seed, protocol=protocol)

    @classmethod
    def from_document(
        cls,
        text: str,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seq_len: int = 512,
        num_samples: int | None = None,
        seed: int = 0,
        name: str = "document",
    ) -> Self:
        """One long text, tokenised once (BOS in front) and cut into contiguous windows of `seq_len`.

        An incomplete last window is dropped unless it is the only one, as is usual for WikiText-2. With
        `num_samples`, that many windows are sampled with `seed`. Raises `InvalidText` for empty text.
        """
        _check_lengths(seq_len, num_samples)
        if not isinstance(text, str):
            raise InvalidText("One text is expected; for a list of texts use from_texts.")
        (ids,) = _encode_filled([text], tokenizer)
        rows = [ids[start : start + seq_len] for start in range(0, max(len(ids) - seq_len + 1, 1), seq_len)]
        if num_samples is not None and len(rows) > num_samples:
            rows = [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), num_samples))]
        protocol = f"one document, contiguous windows of {seq_len} tokens"
        return cls.from_sequences(rows, name=name, seed=seed, protocol=protocol)

    @classmethod
    def from_sequences(
        cls, rows: Sequence[Sequence[int]], *, name: str, seed: int | None = None, protocol: str = "token ids as given"
    ) -> Self:
        """Token ids of different lengths as they are; raises `InvalidText` for none or a negative one."""
        if not rows or not all(rows):
            raise InvalidText("There is no token to work with. Give some text.")
        width = max(map(len, rows))
        # padded with tokens of the text itself: a stray id could bring NaN into a sum that leaves it out
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

    def rows(self) -> Iterator[tuple[int, ...]]:
        """The token ids of each sample, without padding."""
        for row, length in zip(self.input_ids.tolist(), self.lengths, strict=True):
            yield tuple(row[:length])

    def first(self, count: int) -> Self:
        """The first `count` samples (at least one), or all where there are no more."""
        count = max(count, 1)
        if count >= self.num_samples:
            return self
        return replace(
            self, input_ids=self.input_ids[:count], attention_mask=self.attention_mask[:count],
            protocol=f"{self.protocol}, the first {count}",
        )  # fmt: skip

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the token ids, whatever the set is called."""
        return digest(repr(list(self.rows())))

    def batches(self, *, batch_size: int, max_tokens: int | None = None) -> Iterator[Batch]:
        """Batches of samples of like length, longest first, so that little is padded and memory peaks early.

        At most `batch_size` samples and, where given, `max_tokens` positions (one sample always fits).
        """
        order = sorted(range(self.num_samples), key=lambda index: -self.lengths[index])
        start = 0
        while start < len(order):
            width = self.lengths[order[start]]
            size = batch_size if max_tokens is None else max(1, min(batch_size, max_tokens // width))
            indices = order[start : start + size]
            yield Batch(self.input_ids[indices, :width], self.attention_mask[indices, :width], tuple(indices))
            start += size

    def check_vocabulary(self, vocab_size: int, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Raise `InvalidText` if a token id is not in a vocabulary of this size; `tokenizer` is the model's own."""
        check_ids(int(self.input_ids.max()), vocab_size, tokenizer)


class CalibrationSet(TokenSet):
    """Text that scores."""

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_samples: int | None = 128,
        seq_len: int = 512,
        seed: int = 0,
        min_tokens: int = 1,
        name: str = "texts",
    ) -> Self:
        """Each text is one sequence: BOS (where the tokenizer has one) + tokens, cut at `seq_len`.

        Texts with fewer than `min_tokens` tokens (BOS counts, after the cut) are dropped; of more than
        `num_samples` that many are sampled with `seed`. Raises `InvalidText` if nothing is left.
        """
        return cls._from_texts(texts, tokenizer, num_samples, seq_len, seed, min_tokens, name)

    @classmethod
    def from_model(
        cls,
        loaded: "LoadedModel",
        *,
        num_samples: int = 128,
        seq_len: int = 512,
        temperature: float = 1.0,
        seed: int = 0,
        name: str | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> Self:
        """The model's own text, drawn from it with `seed`, for when there is no data at all.

        Raises `InvalidOption` for a number out of range, `NonFiniteActivations`, and whatever `progress` raises.
        """
        from transact.generation import sample_rows  # which itself encodes prompts by this module

        rows = sample_rows(
            loaded, num_samples=num_samples, seq_len=seq_len, temperature=temperature, seed=seed, progress=progress
        )
        protocol = f"drawn from the model at temperature {temperature:g}, cut at {seq_len}"
        return cls.from_sequences(rows, name=name or f"{loaded.source}'s own text", seed=seed, protocol=protocol)


class EvaluationSet(TokenSet):
    """Text that measures; takes all texts unless told otherwise."""

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
        name: str = "texts",
    ) -> Self:
        """As `CalibrationSet.from_texts`; a text must have 2 tokens for a prediction to be measured."""
        return cls._from_texts(texts, tokenizer, num_samples, seq_len, seed, min_tokens, name)

    def overlap(self, calibration: TokenSet) -> float:
        """Share of these samples that also stand in the calibration set, token for token."""
        seen = set(calibration.rows())
        return sum(row in seen for row in self.rows()) / self.num_samples


def _check_lengths(seq_len: int, num_samples: int | None) -> None:
    if seq_len < 1 or (num_samples is not None and num_samples < 1):
        raise InvalidText(
            f"Sequence length {seq_len} and {num_samples} samples were asked for; both must be at least 1."
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


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, seq_len: int | None = None) -> list[list[int]]:
    """BOS (where the tokenizer has one) + tokens of each text, cut at `seq_len`.

    Never a second BOS where the text itself begins with one.
    """
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise InvalidText("The text holds half a character (a lone surrogate). Save it as UTF-8 again.") from None
    bos = tokenizer.bos_token_id
    rows = []
    for ids in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]:
        if bos is not None and (not ids or ids[0] != bos):
            ids = [bos, *ids]
        rows.append(ids[:seq_len])
    return rows


def _encode_filled(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase | None, seq_len: int | None = None
) -> list[list[int]]:
    """`encode` for those texts that hold anything; raises `InvalidText` if none does."""
    if tokenizer is None:
        raise InvalidText("This model came without a tokenizer, so text cannot be read. Use from_token_ids.")
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InvalidText("A list of texts is expected; for a single text use from_document.")
    filled = [text for text in texts if text.strip()]
    if not filled:
        raise InvalidText("The text is empty. Give some text.")
    return encode(filled, tokenizer, seq_len)
