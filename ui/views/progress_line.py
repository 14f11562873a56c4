"""What the page says while work goes on and when it ends: one line of status, one sentence of message."""

from html import escape
from typing import Literal

from ui.format import numbers
from ui.work.watch import Tick

Mood = Literal["plain", "good", "wrong"]


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
    """One sentence for the visitor; wrong input is marked by a word and a border, not by colour alone."""
    if not sentence:
        return ""
    mark = {"plain": "", "good": "Done: ", "wrong": "Not done: "}[mood]
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
