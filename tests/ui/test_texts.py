"""Text at the edge: what is taken, what is refused, and in which words."""

import json

import pandas as pd
import pytest

from ui import texts
from ui.errors import WrongInput


@pytest.mark.parametrize("name", texts.SAMPLES)
def test_bundled_samples_hold_at_least_200_texts(name):
    source = texts.sample(name)
    assert source.origin == "sample"
    assert len(source.texts) >= 200
    assert all(text.strip() for text in source.texts)


@pytest.mark.parametrize("name", texts.SAMPLES)
def test_held_out_text_is_not_the_calibration_text(name):
    held_out = set(texts.evaluation_sample(name).texts)
    assert held_out
    assert not held_out & set(texts.sample(name).texts)


def test_paragraphs_of_a_paste_are_sequences():
    source = texts.pasted("One day.\n\n  Another day.\n \n\nA third.\n", seq_len=64)
    assert source.texts == ("One day.", "Another day.", "A third.")
    assert not source.is_document


@pytest.mark.parametrize("text", ["one line only", "short\n\n" + "long " * 400])
def test_a_single_or_long_paragraph_is_one_document(text):
    source = texts.pasted(text, seq_len=64)
    assert source.is_document
    assert source.texts == (text.strip(),)


@pytest.mark.parametrize("text", ["", "   \n\t "])
def test_empty_paste_is_refused(text):
    with pytest.raises(WrongInput, match="The text is empty"):
        texts.pasted(text, seq_len=64)


def test_a_paste_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(texts, "MAX_PASTE_CHARACTERS", 10)
    with pytest.raises(WrongInput, match="at most 10"):
        texts.pasted("eleven chars", seq_len=64)


def test_unknown_sample_names_the_known_ones():
    with pytest.raises(WrongInput, match="mixed, stories"):
        texts.sample("poems")


class TestUploads:
    def test_txt(self, tmp_path):
        file = tmp_path / "a.txt"
        file.write_text("\ufeffHéllo.\n\nWorld.", encoding="utf-8")
        assert texts.text_columns(file) == ()
        assert texts.uploaded(file, None, 64).texts == ("Héllo.", "World.")

    def test_jsonl_prefers_the_text_column(self, tmp_path):
        file = tmp_path / "a.jsonl"
        file.write_text('{"id": 1, "author": "A", "text": "one"}\n\n{"id": 2, "author": "B", "text": "two"}\n')
        assert texts.text_columns(file) == ("text", "author")
        assert texts.uploaded(file, None, 64).texts == ("one", "two")
        assert texts.uploaded(file, "author", 64).texts == ("A", "B")

    def test_csv_drops_empty_cells(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_text('story,n\n"Once, upon",1\n,2\n"a time",3\n', encoding="utf-8")
        assert texts.uploaded(file, "story", 64).texts == ("Once, upon", "a time")

    def test_parquet(self, tmp_path):
        file = tmp_path / "a.parquet"
        pd.DataFrame({"n": [1, 2], "content": ["x", "y"]}).to_parquet(file)
        assert texts.text_columns(file) == ("content",)
        assert texts.uploaded(file, "content", 64).texts == ("x", "y")

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("a.pdf", b"%PDF", "not a kind that is read here"),
            ("a.txt", b"", "is empty"),
            ("a.txt", b"   \n", "is empty"),
            ("a.txt", "caf\u00e9".encode("latin-1"), "not UTF-8 text .byte 3"),
            ("a.csv", "x\ncaf\u00e9".encode("latin-1"), "not UTF-8"),
            ("a.csv", b"n,m\n1,2\n", None),
            ("a.jsonl", b'{"n": 1}\n', "has no column of text .its columns: n"),
            ("a.jsonl", b'{"text": "a"}\n{"text": \n', "Line 2 of a.jsonl is not JSON"),
            ("a.jsonl", b"[1]\n", "Line 1 of a.jsonl is not an object"),
            ("a.parquet", b"PAR1 not really", "cannot be read as parquet"),
        ],
    )
    def test_wrong_files_get_one_sentence(self, tmp_path, name, content, sentence):
        file = tmp_path / name
        file.write_bytes(content)
        if sentence is None:  # csv cells are text, whatever they look like
            assert texts.text_columns(file) == ("n", "m")
            return
        with pytest.raises(WrongInput, match=sentence) as caught:
            texts.uploaded(file, None, 64)
        assert "\n" not in str(caught.value)

    def test_too_large(self, tmp_path, monkeypatch):
        monkeypatch.setattr(texts, "MAX_UPLOAD_BYTES", 3)
        file = tmp_path / "a.txt"
        file.write_text("four")
        with pytest.raises(WrongInput, match="at most"):
            texts.uploaded(file, None, 64)

    def test_a_column_that_is_not_there(self, tmp_path):
        file = tmp_path / "a.csv"
        file.write_text("story\nx\n")
        with pytest.raises(WrongInput, match="no text column “body”; choose one of story"):
            texts.uploaded(file, "body", 64)


def test_jsonl_round_trip():
    source = texts.TextSource("x", ('a "quoted"\nline', "zwei\u2028drei"), "pasted")
    lines = texts.as_jsonl(source).split("\n")
    assert tuple(json.loads(line)["text"] for line in lines if line) == source.texts
