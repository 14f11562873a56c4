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
    """One bar for all of a job: what is being done, how much of it, the time left, and its steps by name."""
    if tick.waiting:
        wait = "" if tick.wait is None else f", about {numbers.duration(max(tick.wait, 1))}"
        return _bar(None, f"{tick.title}: waiting", f"{tick.before} before you{wait} · it starts by itself")
    left = "" if tick.seconds_left is None else f"{numbers.duration(max(tick.seconds_left, 1))} left"
    counted = f"{tick.done:,} of {tick.total:,} {tick.unit}" if tick.total else ""
    share = tick.share
    if share is None and tick.total and len(tick.steps) < 2:
        share = tick.done / tick.total
    return _bar(share, tick.title, " · ".join(part for part in (counted, left) if part), _steps(tick))


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


def _steps(tick: Tick) -> str:
    """The job's steps in their order, the one at work marked; nothing for a single one."""
    if len(tick.steps) < 2:
        return ""
    items = [
        f"<li{' aria-current=step' if number == tick.number else ''}>{escape(name)}</li>"
        for number, name in enumerate(tick.steps, 1)
    ]
    return f'<ol class="steps">{"".join(items)}</ol>'


def _bar(share: float | None, title: str, detail: str, steps: str = "") -> str:
    value = "" if share is None else f' value="{share:.4f}"'
    return (
        f'<div class="progress"><span class="title">{escape(title)}</span>'
        f'<progress max="1"{value} aria-label="{escape(title)}"></progress>'
        f'<span class="detail">{escape(detail)}</span>{steps}</div>'
    )
