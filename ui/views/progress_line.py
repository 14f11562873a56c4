"""What the page says while work goes on and when it ends: one line of status, one sentence of message."""

from html import escape
from typing import Literal

from ui.format import numbers
from ui.work.watch import Tick

_MARKS = {
    "plain": "", "good": "Done: ", "fair": "Done, at a price: ", "ruined": "Done, but ruined: ", "wrong": "Not done: ",
}  # fmt: skip
Mood = Literal["plain", "good", "fair", "ruined", "wrong"]


def progress(tick: Tick) -> str:
    """A bar with what is being done, how much of it, and the time left."""
    if tick.waiting:
        return _bar(None, f"Waiting: {tick.before} before you", "it starts by itself")
    if not tick.total:
        return _bar(None, tick.title, "")
    left = "" if tick.seconds_left is None else f"{numbers.duration(tick.seconds_left)} left"
    counted = f"{tick.done:,} of {tick.total:,} {tick.unit}"
    return _bar(tick.done / tick.total, tick.title, " · ".join(part for part in (counted, left) if part))


def idle() -> str:
    """Nothing is running."""
    return '<div class="progress idle"><span class="detail">Ready</span></div>'


def message(sentence: str, mood: Mood = "plain") -> str:
    """One sentence for the visitor; what it is worth stands in words and in a border, not in colour alone."""
    if not sentence:
        return ""
    mark = _MARKS[mood]
    role = "alert" if mood == "wrong" else "status"
    return f'<div class="note {mood}" role="{role}"><b>{mark}</b>{escape(sentence)}</div>'


def refusal(sentence: str) -> str:
    """Why a form as it stands cannot be run; said beside it, as it may be half typed."""
    return f'<p class="estimate">{escape(sentence)}</p>'


def _bar(share: float | None, title: str, detail: str) -> str:
    value = "" if share is None else f' value="{share:.4f}"'
    return (
        f'<div class="progress"><span class="title">{escape(title)}</span>'
        f'<progress max="1"{value} aria-label="{escape(title)}"></progress>'
        f'<span class="detail">{escape(detail)}</span></div>'
    )
