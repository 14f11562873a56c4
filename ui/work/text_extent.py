"""How much of a text a scoring run would read: counted for a short one, estimated from the beginning of a long one."""

from dataclasses import dataclass

import transact as ta
from transact.wording import counted
from ui.state.session import Sampling
from ui.text_sources import text_source
from ui.text_sources.text_source import TextSource


@dataclass(frozen=True)
class Extent:
    """`tokens` that are read in sequences of up to `longest`, `amount` in words, and what is to be known of it."""

    tokens: int
    longest: int
    amount: str
    notes: tuple[str, ...] = ()


def of(text: TextSource, beginning: TextSource, loaded: ta.LoadedModel, sampling: Sampling) -> Extent:
    """What a run over `text` reads; where `beginning` is not all of it, as that goes on."""
    if beginning == text:
        read = calibration(text, loaded, sampling)
        return Extent(read.num_tokens, read.input_ids.shape[1], read.amount, read.notes)
    few = sum(bool(one.strip()) for one in text.texts) < sampling.num_samples
    read = text_source.calibration_set(
        beginning, loaded, num_samples=None, seq_len=_length(loaded, sampling), windows=few,
    )  # fmt: skip
    share = beginning.characters / text.characters / (1 - _held_out(text, sampling))
    sequences = min(sampling.num_samples, round(read.num_samples / share))
    tokens = round(sequences * read.num_tokens / read.num_samples)
    available = max(tokens, float(f"{read.available_tokens / share:.2g}"))
    amount = f"about {counted(sequences, 'sequence')}, {counted(tokens, 'token')} (of about {available:,.0f})"
    return Extent(tokens, read.input_ids.shape[1], amount)


def calibration(text: TextSource, loaded: ta.LoadedModel, sampling: Sampling) -> ta.CalibrationSet:
    """The tokens that a run over `text` reads: of what is not held out."""
    scoring, _ = text_source.parts(text, sampling.held_out)
    return text_source.calibration_set(
        scoring, loaded, num_samples=sampling.num_samples, seq_len=_length(loaded, sampling), seed=sampling.seed
    )


def _held_out(text: TextSource, sampling: Sampling) -> float:
    return 0.0 if text.is_bundled else sampling.held_out


def _length(loaded: ta.LoadedModel, sampling: Sampling) -> int:
    return min(sampling.seq_len, loaded.context_length)
