"""A text beside an earlier one, with the words marked that changed."""

import difflib
from html import escape


def changed(before: str, after: str) -> str:
    """`after` as HTML, with the words marked that `before` does not have there."""
    old, new = before.split(), after.split()
    shown = []
    for kind, _, _, start, end in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        words = escape(" ".join(new[start:end]))
        if words:
            shown.append(words if kind == "equal" else f"<mark>{words}</mark>")
    return after[: len(after) - len(after.lstrip())] + " ".join(shown)
