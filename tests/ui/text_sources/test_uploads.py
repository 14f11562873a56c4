"""Uploaded files: what each kind becomes, which column is taken, and what is refused in which words."""

import json

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

from tests.peaks import growth
from transact.text.text_files import read_table
from ui.errors import WrongInput
from ui.server import limits
from ui.text_sources import text_source, uploads

TWO_COLUMNS = {"id": [1, 2, 3], "title": ["A", "", "C"], "story": ["one", "two\nlines", "three"]}


def written(folder, kind: str):
    """The same table as a file of each kind that has columns."""
    file = folder / f"stories.{kind}"
    write(pd.DataFrame(TWO_COLUMNS), file)
    return file


def write(frame: pd.DataFrame, file) -> None:
    match file.suffix:
        case ".jsonl":
            frame.to_json(file, orient="records", lines=True)
        case ".csv":
            frame.to_csv(file, index=False)
        case ".parquet":
            frame.to_parquet(file)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_column_is_chosen_and_empty_cells_are_dropped(tmp_path, kind):
    file = written(tmp_path, kind)
    columns = uploads.text_columns(file)
    assert columns == (("id", "title", "story") if kind == "csv" else ("title", "story"))
    source = uploads.uploaded(file, "story", 64)
    assert source == text_source.TextSource(f"stories.{kind}", ("one", "two\nlines", "three"), "file")
    assert uploads.uploaded(file, "title", 64).texts == ("A", "C")
    assert uploads.uploaded(file, None, 64).texts == uploads.uploaded(file, columns[0], 64).texts
    with pytest.raises(WrongInput, match="no text column “body”; choose one of .*title, story"):
        uploads.uploaded(file, "body", 64)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_the_column_called_text_comes_first(tmp_path, kind):
    file = tmp_path / f"a.{kind}"
    write(pd.DataFrame({"author": ["A", "B"], "Text": ["one", "two"]}), file)
    assert uploads.text_columns(file)[0] == "Text"
    assert uploads.uploaded(file, None, 64).texts == ("one", "two")


def test_txt_has_no_columns_and_paragraphs_are_sequences(tmp_path):
    file = tmp_path / "a.TXT"
    file.write_text("\ufeffHéllo.\n\nWorld.", encoding="utf-8")
    assert uploads.text_columns(file) == ()
    assert uploads.uploaded(file, None, 64).texts == ("Héllo.", "World.")
    assert uploads.uploaded(file, "left over from another file", 64).texts == ("Héllo.", "World.")


def test_a_long_txt_is_one_document(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("word " * 400)
    assert uploads.uploaded(file, None, 64).is_document


def test_a_txt_of_blanks_is_empty(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("  \n")
    with pytest.raises(WrongInput, match="a.txt is empty"):
        uploads.uploaded(file, None, 64)


def test_jsonl_lines_end_at_newlines_alone(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes('{"text": "one\u2028still one\x85"}\r\n\r\n{"text": "two"}\r\n'.encode())
    assert uploads.uploaded(file, None, 64).texts == ("one\u2028still one\x85", "two")


def test_jsonl_rows_may_lack_the_column(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"note": "x"}\n{"text": null}\n{"text": 4}\n')
    assert uploads.uploaded(file, "text", 64).texts == ("one",)


def test_csv_cells_are_text_as_they_stand(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('story,n\n"Once, upon\na ""time""",1\nNA,2\n,3\nnull,4\n007,5\n', encoding="utf-8-sig")
    assert uploads.uploaded(file, "story", 64).texts == ('Once, upon\na "time"', "NA", "null", "007")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pdf", b"%PDF", "not a kind that is read here; upload one of .txt, .jsonl, .json, .csv, .parquet"),
        ("a", b"x", "not a kind"),
        ("a.txt", b"", "is empty"),
        ("a.txt", "caf\u00e9".encode("latin-1"), "not UTF-8 text .byte 3"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n\n", "has no column of text .its columns: none"),
        ("a.jsonl", b'{"n": 1}\n', "has no column of text .its columns: n"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "Line 2 of a.jsonl is not JSON"),
        ("a.jsonl", b"[1]\n", "Line 1 of a.jsonl is not an object"),
        ("a.jsonl", b"[" * 200_000, "Line 1 of a.jsonl is not JSON"),
        ("a.jsonl", b'{"text": "caf\xe9"}', "not UTF-8"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n\n", "cannot be read as csv"),
        ("a.csv", b"story\n", "has no column of text .its columns: story"),
        ("a.csv", "x\ncaf\u00e9".encode("latin-1"), "not UTF-8"),
        ("a.csv", b"a,b\n1,2,3\n4,5\n6,7,8,9\n", "cannot be read as csv"),
        ("a.csv", b"text\nOnce, upon a time\nOne day, a fox\n", "more cells than its first line has names; put a text"),
        ("a.parquet", b"", "is empty"),
        ("a.parquet", b"PAR1 not really", "cannot be read as parquet"),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path, name, content, sentence):
    file = tmp_path / name
    file.write_bytes(content)
    for read in (lambda: uploads.text_columns(file), lambda: uploads.uploaded(file, None, 64)):
        with pytest.raises(WrongInput, match=sentence) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_parquet_without_text(tmp_path):
    file = tmp_path / "a.parquet"
    pd.DataFrame({"n": [1], "raw": [b"bytes"]}).to_parquet(file)
    with pytest.raises(WrongInput, match="no column of text .its columns: n, raw"):
        uploads.text_columns(file)


def test_a_file_over_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_UPLOAD_BYTES", 3)
    file = tmp_path / "a.txt"
    file.write_text("four")
    with pytest.raises(WrongInput, match="at most"):
        uploads.uploaded(file, None, 64)


@pytest.mark.slow
def test_a_small_parquet_that_unpacks_to_gigabytes(tmp_path, monkeypatch):
    """One value, stored once and repeated by its number: 2 GB of text in a file of kilobytes."""
    file = tmp_path / "a.parquet"
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 20_000, pyarrow.int32()), ["x" * 100_000])
    parquet.write_table(pyarrow.table({"text": repeated}), file)
    assert file.stat().st_size < 1_000_000
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 20_000_000)
    with pytest.raises(WrongInput, match="unpacks to more than 20 MB"):
        uploads.uploaded(file, None, 64)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3])
def test_a_small_parquet_with_a_cell_as_long_as_a_library(tmp_path, rows):
    """What unpacks it is native code, which has the whole cell before anybody can ask for its length."""
    file = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["x" * (90_000_000 // rows)] * rows})
    parquet.write_table(table, file, compression="zstd", use_dictionary=False)
    del table
    assert file.stat().st_size < 100_000
    with growth() as grown, pytest.raises(WrongInput, match="a.parquet has a text of more than 20 MB; give a part"):
        uploads.uploaded(file, None, 64)
    assert grown() < 100_000_000


def test_a_parquet_that_is_read_in_a_process_of_its_own_has_the_same_rows(tmp_path):
    rows = [None if number % 7 == 0 else f"{number} naïve 🙂\n\u2028 x" for number in range(500)]
    frame = pd.DataFrame({"text": rows, "n": range(500)})
    file = tmp_path / "a.parquet"
    frame.to_parquet(file, row_group_size=100)
    here = read_table(file, file.name).column(None)
    there = uploads.uploaded(file, None, 64)
    assert there.texts == here.texts and len(here.texts) == 428
    assert (there.skipped, here.problem) == (here.skipped, "")


def test_what_was_read_is_what_the_file_to_take_away_holds(tmp_path):
    source = uploads.uploaded(written(tmp_path, "csv"), "story", 64)
    lines = text_source.as_jsonl(source).split("\n")
    assert tuple(json.loads(line)["text"] for line in lines if line) == source.texts


CHATS = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], [{"role": "user", "content": "c"}]]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_conversations_are_a_column(tmp_path, kind):
    file = tmp_path / f"chats.{kind}"
    rows = [{"id": "x", "messages": chat} for chat in [*CHATS, None, []]]
    file.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    assert uploads.text_columns(file) == ("messages", "id")
    source = uploads.uploaded(file, None, 64)
    assert (source.values, source.is_chat, source.skipped) == (CHATS, True, 2)
    lines = text_source.as_jsonl(source).split("\n")
    assert [json.loads(line)["messages"] for line in lines if line] == CHATS


def test_what_was_left_out_is_counted(tmp_path):
    file = written(tmp_path, "csv")
    assert uploads.uploaded(file, "title", 64).skipped == 1


def test_a_json_upload_is_limited_as_a_whole(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"text": "a" * 4_000_000}]))
    with pytest.raises(WrongInput, match="at most 4,000,000 are taken as .json. Save it as .jsonl"):
        uploads.text_columns(file)
