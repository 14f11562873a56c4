"""What a visitor reads of an unexpected error: one sentence. The details are logged."""

import errno
import logging

import transact as ta

logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Interrupted(ta.TransactError):
    """The work was ended from outside, before it had anything to show."""


class DiskFull(ta.SaveRefused):
    """The disk, or what visitors may have of it, is full; worded for visitors, who do not see that disk."""


def presentable(error: BaseException, title: str) -> Exception:
    """The error that ended the work `title`, as one that can be shown where its cause lies outside this program.

    An exception that would end a thread or the whole server (`SystemExit`) becomes one that does not.
    """
    if isinstance(error, ta.SaveRefused) and not isinstance(error, DiskFull) and error.__cause__ is not None:
        return full_disk(error.__cause__, title)  # the library names the folder, which is none of a visitor's
    if isinstance(error, (ta.TransactError, ta.Cancelled)):
        return error
    if ta.ran_out_of_memory(error):
        return ta.NotEnoughMemory(
            f"Memory ran out during “{title}”, and nothing was changed. Take fewer or shorter sequences, or a smaller "
            "model, and try again."
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        return full_disk(error, title)
    if isinstance(error, Exception):
        return error
    return Interrupted(f"“{title}” was ended from outside ({type(error).__name__}); nothing was changed. Try again.")


def full_disk(error: BaseException, title: str) -> DiskFull:
    """The sentence for work that the disk had no room for, or would not write for another reason."""
    is_full = not isinstance(error, OSError) or error.errno in _FULL
    return DiskFull(
        f"The disk of the machine that runs this page {'is full' if is_full else 'cannot be written to'} "
        f"({reason(error)}), so “{title}” could not be finished; nothing was changed. Free some space there, then try "
        "again."
    )


def reason(error: BaseException) -> str:
    """Why the disk refused, without the name of a file."""
    return getattr(error, "strerror", None) or "only a part of it could be written"


def sentence(error: Exception) -> str:
    """The sentence for an error: its own where it was meant to be shown, otherwise one that is logged in full."""
    if isinstance(error, ta.TransactError):
        return str(error)
    logger.error("unexpected failure", exc_info=error)
    # its own words may name files of this machine
    return f"Something failed that should not ({type(error).__name__}); nothing was changed, so you can go on."
