"""What is told when something goes wrong that nobody meant to happen: one sentence, and the details in the log."""

import errno
import logging

import transact as ta

logger = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Interrupted(ta.TransactError):
    """The work was ended from outside, before it had anything to show."""


def told(error: BaseException, title: str) -> Exception:
    """The error that ended the work `title`, as one that can be shown where its cause lies outside this program.

    An exception that would end a thread or the whole server (`SystemExit`) becomes one that does not.
    """
    if isinstance(error, (ta.TransactError, ta.Cancelled)):
        return error
    if ta.ran_out_of_memory(error):
        return ta.NotEnoughMemory(
            f"Memory ran out during “{title}”, and nothing was changed. Take fewer or shorter sequences, or a smaller "
            "model, and try again."
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        return ta.SaveRefused(
            f"The disk of the machine that runs this page is full ({error.strerror}), so “{title}” could not be "
            "finished; nothing was changed. Free some space there, then try again."
        )
    if isinstance(error, Exception):
        return error
    return Interrupted(f"“{title}” was ended from outside ({type(error).__name__}); nothing was changed. Try again.")


def sentence(error: Exception) -> str:
    """The sentence for an error: its own where it was meant to be shown, otherwise one that is logged in full."""
    if isinstance(error, ta.TransactError):
        return str(error)
    logger.error("unexpected failure", exc_info=error)
    # its own words may name files of this machine
    return f"Something failed that should not ({type(error).__name__}); nothing was changed, so you can go on."
