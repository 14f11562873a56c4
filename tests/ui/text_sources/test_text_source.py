"""Text at the edge: what is taken, what is refused, and in which words."""

import json

import pytest

import transact as ta
from transact.text.text_tables import is_text, likeliest_first
from ui.errors import WrongInput
from ui.server import limits
from ui.text_sources import text_source


@pytest.mark.parametrize("name", text_source.SAMPLES)
def test_bundled_samples_hold_at_least_200_texts(name):
    source = text_source.sample(name)
    assert source.origin == "sample"
    assert len(source.texts) >= 200
    assert all(text.strip() for text in source.texts)


@pytest.mark.parametrize("name", text_source.SAMPLES)
def test_held_out_text_is_not_the_calibration_text(name):
    held_out = set(text_source.evaluation_sample(name).texts)
    assert held_out
    assert not held_out & set(text_source.sample(name).texts)


def test_paragraphs_of_a_paste_are_sequences():
    source = text_source.pasted("One day.\n\n  Another day.\n \n\nA third.\n", seq_len=64)
    assert source.texts == ("One day.", "Another day.", "A third.")
    assert not source.is_document


@pytest.mark.parametrize("text", ["one line only", "short\n\n" + "long " * 400])
def test_a_single_or_long_paragraph_is_one_document(text):
    source = text_source.pasted(text, seq_len=64)
    assert source.is_document
    assert source.texts == (text.strip(),)


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_empty_paste_is_refused(text):
    with pytest.raises(WrongInput, match="The text is empty"):
        text_source.pasted(text, seq_len=64)


def test_a_paste_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "MAX_PASTE_CHARACTERS", 10)
    with pytest.raises(WrongInput, match="at most 10"):
        text_source.pasted("eleven chars", seq_len=64)


def test_unknown_sample_names_the_known_ones():
    with pytest.raises(WrongInput, match="mixed, stories"):
        text_source.sample("poems")


@pytest.mark.parametrize(
    ("cell", "expected"), [("a", True), ("", False), (" \n", False), (None, False), (1, False), (float("nan"), False)]
)
def test_what_counts_as_text_in_a_cell(cell, expected):
    assert is_text(cell) is expected


def test_the_column_called_text_is_guessed_first():
    assert likeliest_first(["title", "body"]) == ("title", "body")
    assert likeliest_first(["title", "Text", "body"]) == ("Text", "title", "body")


def test_text_in_hand_is_its_own_answer_and_a_key():
    source = text_source.sample("stories")
    assert source.read(ta.NO_PROGRESS) is source
    chosen = text_source.DatasetChoice("a/b", "en", "train", "text")
    rows = [text_source.TextSource("x", ("y",), "dataset", dataset=chosen) for _ in range(2)]
    assert {rows[0]: 1}[rows[1]] == 1
    assert rows[0] != text_source.TextSource("x", ("y",), "dataset", dataset=text_source.DatasetChoice("a/b"))


def test_jsonl_round_trip():
    source = text_source.TextSource("x", ('a "quoted"\nline', "zwei\u2028drei"), "pasted")
    lines = text_source.as_jsonl(source).split("\n")
    assert tuple(json.loads(line)["text"] for line in lines if line) == source.texts
