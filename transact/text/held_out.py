"""Text in two parts, of which one scores and the other measures."""

from collections.abc import Sequence
from typing import TypeVar

from transact.errors import InvalidOption, InvalidText, is_finite, shown

T = TypeVar("T", str, Sequence[dict])


def hold_out(texts: Sequence[T], share: float = 0.1) -> tuple[list[T], list[T]]:
    """The texts in two parts that have nothing in common: what comes first, and the last `share` of all characters.

    Whole texts are held out as far as that share goes. Where the last one is longer, it is cut between two words; a
    conversation (a list of messages, as `from_chats` takes them) is never cut, and one is held out at least.

    Raises `InvalidOption` for a share that is not between 0 and 1, `InvalidText` where nothing would be in one of the
    parts.
    """
    if not is_finite(share) or not 0 < share < 1:
        raise InvalidOption(f"share is {shown(share)}; give the part of the text that is held out, between 0 and 1.")
    if isinstance(texts, str):
        raise InvalidText("A list of texts is expected; put a single text into a list.")
    kept = list(texts)
    room = share * sum(map(_size, kept))
    held: list[T] = []
    while kept and (_size(kept[-1]) <= room or not (held or isinstance(kept[-1], str))):
        room -= _size(kept[-1])
        held.insert(0, kept.pop())
    if kept and isinstance(kept[-1], str) and not any(map(_size, held)):
        last = kept[-1].strip()
        before, after = _cut(last, len(last) - int(room))
        kept[-1:], held = [before], [after]
    if not any(map(_size, kept)) or not any(map(_size, held)):
        raise InvalidText(f"This text is too short to hold {share:.0%} of it out. Give more text.")
    return kept, held


def _size(text: str | Sequence[dict]) -> int:
    """Characters, without spaces around them."""
    if isinstance(text, str):
        return len(text.strip())
    return sum(len(message["content"]) for message in text if isinstance(message.get("content"), str))


def _cut(text: str, at: int) -> tuple[str, str]:
    """The text before and after the last space up to that place; before all of it where there is none."""
    place = max(text.rfind(space, 0, at + 1) for space in " \n\t")
    return (text, "") if place < 0 else (text[:place], text[place + 1 :])
