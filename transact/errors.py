"""Errors that a user can meet.

Every message says what was given, what is allowed and what to do. Interfaces show it as it is.
"""

import math
from numbers import Integral, Real

from transact.redaction import one_line, without_tokens

MAX_SEED = 2**32 - 1
"""The largest seed of numpy's generators; torch's and Python's accept larger ones."""
_LARGEST = 2**63 - 1


class TransactError(Exception):
    """Base of all errors that a user can cause or fix; its text is meant to be shown.

    The text is always one line without access tokens.
    """

    def __init__(self, message: str = ""):
        super().__init__(one_line(without_tokens(message)))


class ModelNotFound(TransactError):
    """The hub id or folder does not exist, is gated, or the hub cannot be reached."""


class ModelUnsupported(TransactError):
    """The model exists, but it cannot be pruned here: unknown family, quantised, mixture of experts, ..."""


class CheckpointBroken(TransactError):
    """A checkpoint's files are missing, truncated, or contradict its configuration."""


class NotEnoughMemory(TransactError):
    """The model would not fit, raised before any weight is read; or memory ran out nevertheless."""


class InvalidText(TransactError):
    """Calibration or evaluation text that is empty or too short to be of use."""


class InvalidPrompt(TransactError):
    """A prompt that is empty or fills the model's context."""


class InvalidTarget(TransactError):
    """A pruning target that is out of range or leaves a layer with nothing."""


class InvalidPlan(TransactError):
    """A plan that is malformed or was made for another model."""


class InvalidOption(TransactError):
    """A named choice (metric, allocation, compensation, dtype) that does not exist, or a number out of range."""


class InvalidTask(TransactError):
    """A standard task that does not exist, whose data cannot be fetched, or that does not suit a model."""


class NonFiniteActivations(TransactError):
    """NaN or infinity in a forward or backward pass."""


class TrainingFailed(TransactError):
    """Training cannot continue: a loss that is NaN or infinite, or a process that was lost."""


class SaveRefused(TransactError):
    """The destination cannot take the checkpoint."""


class NumberTooLarge(SaveRefused):
    """A weight is too large for the dtype that it would be written in."""


class PushRefused(TransactError):
    """The hub refuses the model, or the repository holds other files."""


def choice(given: str, allowed, what: str) -> str:
    """Return `given` if it is one of `allowed`; raise `InvalidOption` that lists them otherwise."""
    if not isinstance(given, str) or given not in allowed:
        raise InvalidOption(f"There is no {what} named {shown(given)}; choose one of {', '.join(allowed)}.")
    return given


def is_whole_number(value: object) -> bool:
    """Whether it is an integer of any type; booleans are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether it is a real number of any type that a float can hold, neither NaN nor infinite; booleans are none."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def whole_number(
    value: int, name: str, *, least: int = 0, most: int = _LARGEST, error: type[TransactError] = InvalidOption
) -> int:
    """Return `value` as `int`; raise `error` unless it is a whole number from `least` to `most`."""
    if is_whole_number(value) and least <= value <= most:
        return int(value)
    upper = "" if most == _LARGEST else f" to {most}"
    raise error(f"{name} is {shown(value)}; give a whole number from {least}{upper}.")


def seed_number(value: int) -> int:
    """Return `value` if every generator takes it as a seed; raise `InvalidOption` otherwise."""
    return whole_number(value, "seed", most=MAX_SEED)


def shown(value: object) -> str:
    """A wrong value, short enough for a sentence."""
    if isinstance(value, Integral) and abs(int(value)) > 10**40:
        return "a number of many digits"
    return repr(value)[:80]
