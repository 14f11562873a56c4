"""What the library's names of choices are called on the page."""

import transact as ta
from transact.planning.search import METRIC as SEARCH


def metric(name: str) -> str:
    """As the menu has it, without its explanation; the search is no metric of the menu."""
    return "Search" if name == SEARCH else ta.METRICS[name].label


def short_metric(name: str) -> str:
    """Without the name that the field has for it, for an axis."""
    return metric(name).partition(" (")[0]


def repair(name: str) -> str:
    """One word or several, as in the menu's parentheses: "least_squares, training" -> "least squares, training"."""
    return name.replace("_", " ")
