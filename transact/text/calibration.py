"""Texts as token sequences that a model is scored on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from transformers import PreTrainedTokenizerBase

from transact.progress import NO_PROGRESS, Progress
from transact.text.encoding import Beginning, Cutting
from transact.text.tokens import TokenSet

if TYPE_CHECKING:
    from transact.models.loaded_model import LoadedModel


class CalibrationSet(TokenSet):
    """Text that a model is scored on."""

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
        bos: bool | None = None,
        windows: bool | str = False,
        name: str = "texts",
    ) -> Self:
        """Each text is one sequence, begun as the model's own tokenizer begins one and cut at `seq_len`.

        - `bos=True` puts BOS in front even where the tokenizer does not, `bos=False` puts nothing there; a text that
          starts with BOS never gets a second one.
        - Texts with fewer than `min_tokens` tokens (BOS counts, after the cut) are dropped; of more than `num_samples`
          that many are sampled with `seed`.
        - `windows=True` cuts a text longer than `seq_len` into contiguous windows, as `from_document` does, instead of
          cutting it off. `windows="auto"`, which the page and the command line use, does so where otherwise fewer than
          `num_samples` samples would be found, or, where all texts are taken, less than half of their tokens.

        Raises `InvalidText` if nothing is left, `InvalidOption` for `bos=True` where the tokenizer has no BOS.
        """
        return cls._from_texts(texts, tokenizer, Cutting(num_samples, seq_len, seed, min_tokens, bos, windows), name)

    @classmethod
    def from_chats(
        cls,
        messages: Sequence[Sequence[dict]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        num_samples: int | None = 128,
        seq_len: int = 512,
        seed: int = 0,
        min_tokens: int = 1,
        name: str = "chats",
    ) -> Self:
        """Each conversation, a list of {"role": …, "content": …}, is one sequence, by the model's chat template.

        The template alone decides how a sequence begins. Otherwise as `from_texts`. Raises `InvalidText` where the
        tokenizer has no chat template, and for a conversation that the template cannot write.
        """
        cutting = Cutting(num_samples, seq_len, seed, min_tokens, bos=False)
        return cls._from_chats(messages, tokenizer, cutting, name)

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
        from transact.text.generation import sample_rows  # which itself encodes prompts by this module

        rows = sample_rows(
            loaded, num_samples=num_samples, seq_len=seq_len, temperature=temperature, seed=seed, progress=progress
        )
        protocol = f"drawn from the model at temperature {temperature:g}, cut at {seq_len}"
        if loaded.tokenizer is not None:
            protocol += f", {Beginning.of(loaded.tokenizer).described('sequence')}"
        return cls.from_sequences(rows, name=name or f"{loaded.source}'s own text", seed=seed, protocol=protocol)


def spread_out(calibration: CalibrationSet) -> CalibrationSet:
    """The same samples in an order in which the first so many are about evenly spread, however many they are.

    Sample n comes where the binary digits of n, read backwards, stand among those of the others (van der Corput 1935).
    """
    rows = list(calibration.rows())
    digits = (len(rows) - 1).bit_length()
    order = sorted(range(len(rows)), key=lambda number: f"{number:0{digits}b}"[::-1])
    return CalibrationSet.from_sequences([rows[number] for number in order], name=calibration.name)


def evenly_spread(calibration: CalibrationSet, num_tokens: int) -> CalibrationSet:
    """Samples at equal distances, so that about that many tokens are left; all of them where there are few."""
    available = calibration.num_samples
    count = max(1, round(available * min(1.0, num_tokens / calibration.num_tokens)))
    if count == available:
        return calibration
    rows = list(calibration.rows())
    return CalibrationSet.from_sequences([rows[n * available // count] for n in range(count)], name=calibration.name)
