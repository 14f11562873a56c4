"""What can go wrong for a user, each with a message of its own.

Every message says what was given, what is allowed and what to do. Interfaces show it as it is.
"""

from transact.redaction import one_line, without_tokens


class TransactError(Exception):
    """Base of all errors that a user can cause or mend; its text is meant to be shown.

    Whatever was put into it, it is one line and holds no access token.
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
    """The model would not fit, said before any weight is read; or memory ran out all the same."""


class InvalidText(TransactError):
    """Calibration or evaluation text that is empty or too short to be of use."""


class InvalidPrompt(TransactError):
    """A prompt that is empty or fills the model's context."""


class InvalidTarget(TransactError):
    """A pruning target that is out of range or leaves a layer with nothing."""


class InvalidPlan(TransactError):
    """A plan that is malformed or was made for another model."""


class InvalidOption(TransactError):
    """A named choice (metric, allocation, compensation, dtype) that does not exist."""


class InvalidTask(TransactError):
    """A standard task that does not exist, whose data cannot be had, or that does not go with a model."""


class NonFiniteActivations(TransactError):
    """NaN or infinity met in the forward pass."""


class TrainingFailed(TransactError):
    """Training cannot go on: a loss that is NaN or infinite, or a process that was lost."""


class SaveRefused(TransactError):
    """The destination cannot take the checkpoint."""


class PushRefused(TransactError):
    """The hub, or what is there already, cannot take the model."""


def choice(given: str, allowed, what: str) -> str:
    """Return `given` if it is one of `allowed`; raise `InvalidOption` that lists them otherwise."""
    if given not in allowed:
        raise InvalidOption(f"There is no {what} named {given!r}; choose one of {', '.join(allowed)}.")
    return given
