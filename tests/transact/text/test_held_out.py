"""A text in two parts: the last measures, and nothing of it scores."""

import pytest

import transact as ta

CHATS = [[{"role": "user", "content": letter * 10}] for letter in "abcde"]


@pytest.mark.parametrize(
    ("texts", "share", "kept", "held"),
    [
        (["a" * 10] * 9 + ["b" * 10], 0.1, ["a" * 10] * 9, ["b" * 10]),
        (["a" * 10] * 8 + ["b" * 4, "c" * 4], 0.1, ["a" * 10] * 8, ["b" * 4, "c" * 4]),
        (["a" * 95, "", "c" * 5, "  "], 0.1, ["a" * 95], ["", "c" * 5, "  "]),  # 5 of 100; the next would be too many
        (["one two three four"], 0.3, ["one two three"], ["four"]),
        (["one", "two three  four "], 0.25, ["one", "two three "], ["four"]),
        (CHATS, 0.4, CHATS[:3], CHATS[3:]),
        (CHATS, 0.01, CHATS[:4], CHATS[4:]),  # a conversation is never cut
    ],
)
def test_the_last_part_is_held_out(texts, share, kept, held):
    assert ta.hold_out(texts, share) == (kept, held)


def test_no_word_stands_in_both_parts():
    words = [f"word{number}" for number in range(1000)]
    for share in (0.1, 0.33, 0.9):
        for texts in ([" ".join(words)], [" ".join(words[start : start + 7]) for start in range(0, 1000, 7)]):
            kept, held = ([word for text in part for word in text.split()] for part in ta.hold_out(texts, share))
            assert [*kept, *held] == words
            assert len(held) == pytest.approx(share * 1000, rel=0.15)


@pytest.mark.parametrize("texts", [[], [""], ["word"], ["a", ""], CHATS[:1]])
def test_a_text_that_is_too_short_is_refused(texts):
    with pytest.raises(ta.InvalidText, match="too short"):
        ta.hold_out(texts, 0.1)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), True, "much", None])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(ta.InvalidOption, match="share is"):
        ta.hold_out(["one two three"], share)


def test_a_single_text_is_given_in_a_list():
    with pytest.raises(ta.InvalidText, match="list"):
        ta.hold_out("one two three")
