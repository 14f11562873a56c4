"""The tokens at which a head or a channel was strongest, with the text around them."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from transact.errors import InvalidOption, InvalidText, is_whole_number, whole_number
from transact.observing.statistics import ActivationStatistics
from transact.text.calibration import CalibrationSet

_TOKENS_PER_CHARACTER = 4
"""UTF-8 encodes a character in at most this many bytes, so it is complete after at most this many tokens."""

_REPLACEMENT = "\ufffd"
"""What incomplete characters are decoded to."""


@dataclass(frozen=True)
class Reading:
    """One place where a unit was strong: `before` + `token` + `after` is the text around it, as decoded.

    `activation`: the norm of a head's transitional activation, or a channel's activation with its sign.
    `sample` and `position` count samples of the calibration set and tokens of the sample, from 0.
    """

    before: str
    token: str
    after: str
    activation: float
    sample: int
    position: int


def reads(
    statistics: ActivationStatistics,
    calibration: CalibrationSet,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    layer: int,
    head: int | None = None,
    channel: int | None = None,
    k: int | None = None,
    context: int = 24,
) -> tuple[Reading, ...]:
    """The places where one head or one MLP channel was strongest, strongest first, one in each sample.

    `statistics` must be observed with `top_k`, on this calibration set; at most `k` readings (all that
    were kept by default), each with `context` tokens on either side. A token that is part of a character is
    shown as the whole character; special tokens are shown as they are spelled.

    Raises `InvalidText` for another calibration set and for a model without tokenizer, `InvalidOption` for
    statistics without peaks, for both or neither of `head` and `channel`, and for numbers out of range.
    """
    if calibration.fingerprint != statistics.calibration.fingerprint:
        raise InvalidText(
            f"These statistics were observed on {statistics.calibration.name!r}, not on this calibration set "
            f"({calibration.name!r}). Pass the set that was observed."
        )
    if tokenizer is None:
        raise InvalidText("This model came without a tokenizer, so its tokens cannot be shown as text.")
    if not statistics.head_peaks:
        raise InvalidOption("These statistics do not say where units were strong. Observe with top_k=8.")
    if (head is None) == (channel is None):
        raise InvalidOption(f"head is {head!r} and channel is {channel!r}; give exactly one of them.")
    kind, unit, layers = (
        ("head", head, statistics.head_peaks) if channel is None else ("channel", channel, statistics.channel_peaks)
    )
    peaks = layers[_index("layer", layer, len(layers))]
    unit = _index(kind, unit, len(peaks.samples))
    kept = peaks.samples.shape[1]
    count = kept if k is None else min(whole_number(k, "k", least=1), kept)
    context = whole_number(context, "context")
    rows = list(calibration.rows())
    places = zip(
        peaks.activations[unit].tolist(), peaks.samples[unit].tolist(), peaks.positions[unit].tolist(), strict=True
    )
    return tuple(
        Reading(*_around(rows[sample], position, context, tokenizer), activation, sample, position)
        for activation, sample, position in list(places)[:count]
    )


def _around(
    ids: tuple[int, ...], position: int, context: int, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, str, str]:
    """The text before, of and after the token at `position`, `context` tokens on either side.

    A token's own text is what it adds to the text of all before it: decoded alone, it would lose its space
    and, where a character is spelled in several tokens, its meaning.
    """
    text = _decoded(ids, tokenizer)

    def complete_until(end: int) -> int:
        """Characters of the text that the tokens before `end` complete."""
        return _common(_decoded(ids[:end], tokenizer), text)

    def begun_until(end: int) -> int:
        """The same, with a character that those tokens begin."""
        for further in range(end, min(end + _TOKENS_PER_CHARACTER, len(ids))):
            spelled = _decoded(ids[:further], tokenizer)
            if text.startswith(spelled):
                return len(spelled)
        return len(text) if end + _TOKENS_PER_CHARACTER >= len(ids) else complete_until(end)

    first = complete_until(max(position - context, 0))
    start = complete_until(position)
    end = max(begun_until(position + 1), start)
    if start == end and text[:start].endswith(_REPLACEMENT):
        start -= 1  # one more byte of an invalid character, or of the replacement character itself
    last = max(begun_until(min(position + 1 + context, len(ids))), end)
    return text[first:start], text[start:end], text[end:last]


def _decoded(ids: tuple[int, ...], tokenizer: PreTrainedTokenizerBase) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _common(first: str, second: str) -> int:
    """Length of the longest common beginning."""
    together = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in together if one != other), min(len(first), len(second)))


def _index(kind: str, value: int | None, available: int) -> int:
    if value is None or not is_whole_number(value) or not 0 <= value < available:
        raise InvalidOption(f"There is no {kind} {value!r}; the {kind}s run from 0 to {available - 1}.")
    return value
