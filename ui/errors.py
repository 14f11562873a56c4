"""Mistakes that only the page can see: an unreadable file, a step taken before the one it needs."""

from transact import TransactError


class WrongInput(TransactError):
    """What a visitor gave cannot be used; the text is shown in the page as it stands."""


class NotYet(TransactError):
    """A step was asked for before the step it builds on."""


class Busy(TransactError):
    """So many runs wait already that another may not join them."""
