"""Single answers of two models to the same questions, right and wrong told by sign and word as well as colour."""

from html import escape

import transact as ta

_TAIL = 110
"""Characters of a question that are shown: its end, as the answer follows that."""
_SHOWN = 8
"""Answers that are seen at once; the others are unfolded."""
_HEADS = ("Question", "Right answer", "Dense")


def answers_table(dense: ta.ProbeResult, other: ta.ProbeResult, name: str) -> str:
    """Question, right answer, and both models' as HTML: what was lost first, then what was gained, then the rest.

    `name`: the column of the second model.
    """
    pairs = list(zip(dense.answers, other.answers, strict=True))
    lost, gained = (sum(pair == (first, not first) for pair in map(_rights, pairs)) for first in (True, False))
    rows = [_row(dense.kind, *pair) for pair in sorted(pairs, key=lambda pair: _order(*_rights(pair)))]
    rest = ""
    if len(rows) > _SHOWN:
        rest = f"<details><summary>The other {len(rows) - _SHOWN}</summary>{_table(name, rows[_SHOWN:])}</details>"
    return (
        f'<p class="headline">{escape(dense.kind.capitalize())}: {lost} of {dense.correct} right answers lost, '
        f"{gained} gained.</p>{_table(name, rows[:_SHOWN])}{rest}"
    )


def question(kind: str, prompt: str) -> str:
    """What was asked, as a person would: the last line of the prompt, or its end."""
    line = prompt.rsplit("\n", 1)[-1]
    if kind == "addition":
        return f"{line.rstrip(':').replace('+', ' + ')} = ?"
    asked = prompt if kind == "code" else prompt.replace("\n", " ") if kind == "recall" else line
    return asked if len(asked) <= _TAIL else f"… {asked[-_TAIL:].lstrip()}"


def answer(kind: str, text: str | None) -> tuple[str, str]:
    """What was answered, and how it was worked out where the answer shows that."""
    if text is None:
        return "–", ""
    shown = text.strip()
    if kind == "addition" and ";" in shown:
        working, _, total = shown.rpartition(";")
        return total or "nothing", working
    return shown or "nothing", ""


def _rights(pair: tuple[ta.ProbeAnswer, ta.ProbeAnswer]) -> tuple[bool, bool]:
    return pair[0].is_right, pair[1].is_right


def _order(first: bool, second: bool) -> int:
    return ((True, False), (False, True), (False, False), (True, True)).index((first, second))


def _table(name: str, rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in (*_HEADS, name))
    return f'<table class="answers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _row(kind: str, one: ta.ProbeAnswer, other: ta.ProbeAnswer) -> str:
    asked, right = question(kind, one.prompt), _written(*answer(kind, one.right))
    return f'<tr><th scope="row">{escape(asked)}</th><td>{right}</td>{_cell(kind, one)}{_cell(kind, other)}</tr>'


def _cell(kind: str, given: ta.ProbeAnswer) -> str:
    sign, word, mood = ("✓", "right", "good") if given.is_right else ("✗", "wrong", "wrong")
    return (
        f'<td class="{mood}"><b aria-hidden="true">{sign}</b><span class="unseen">{word}: </span> '
        f"{_written(*answer(kind, given.given))}</td>"
    )


def _written(shown: str, working: str) -> str:
    return escape(shown) + (f" <small>{escape(working)}</small>" if working else "")
