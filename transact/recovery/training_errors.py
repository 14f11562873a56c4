"""Failures of disk, network and processes in a training, as errors that name the last good checkpoint."""

import errno
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from transact.errors import SaveRefused, TrainingFailed
from transact.recovery.savepoints import last_checkpoint

_DISK_NUMBERS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOENT,
)
_DISK_SIGNS = ("PytorchStreamWriter", "inline_container", "file write failed", "No space left")
_PROCESS_SIGNS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "ProcessGroup")


@contextmanager
def explained_failures(directory: Path):
    """Raise such failures inside the block as errors that name the last good checkpoint."""
    try:
        yield
    except TrainingFailed as error:
        raise TrainingFailed(f"{error} {_last_good(directory)}") from None
    except OSError as error:
        if error.errno not in _DISK_NUMBERS:
            raise TrainingFailed(
                f"The training text could not be read further ({error}). Start the same command again. "
                f"{_last_good(directory)}"
            ) from error
        raise _unwritten(error, directory) from error
    except SafetensorError as error:
        raise _unwritten(error, directory) from error
    except RuntimeError as error:
        text = str(error)
        if any(sign in text for sign in _DISK_SIGNS):
            raise _unwritten(text.splitlines()[0], directory) from error
        if any(sign in text for sign in _PROCESS_SIGNS):
            raise TrainingFailed(
                f"Another process of this training was lost ({text.splitlines()[0]}). Start the same command again. "
                f"{_last_good(directory)}"
            ) from error
        raise


def _unwritten(error: object, directory: Path) -> SaveRefused:
    return SaveRefused(
        f"A checkpoint could not be written ({error}). Free some space or choose another place. {_last_good(directory)}"
    )


def _last_good(directory: Path) -> str:
    checkpoint = last_checkpoint(directory)
    if checkpoint is None:
        return "This phase has no checkpoint yet; what was there before it is untouched."
    return f"The last good checkpoint is {checkpoint}; the same call goes on from there."
