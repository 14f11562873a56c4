"""Files of texts in the shell: every kind gives the same samples, and what is left out or wrong is told."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow
import pytest
from pyarrow import parquet

import transact as ta
from tests.tiny_models import build
from tests.tokenizers_by_hand import TEMPLATE, words_tokenizer
from transact.cli import main, steps
from transact.cli.files import Text, read_text
from transact.text.file_limits import FileLimits
from transact.text.text_files import read_table

ROWS = [{"id": 1, "text": "a b"}, {"id": 2, "text": None}, {"id": 3, "text": ""}, {"id": 4, "text": "c\u2028d"}]
CHATS = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], [{"role": "user", "content": "c"}]]


def write(file: Path, rows: list[dict]) -> Path:
    """The rows in a file of the kind that its name says."""
    match file.suffix:
        case ".jsonl":
            file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8-sig")
        case ".json":
            file.write_text(json.dumps(rows, indent=1), encoding="utf-8-sig")
        case ".csv":
            pd.DataFrame(rows).to_csv(file, index=False, encoding="utf-8-sig")
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_kind_gives_the_same_texts_and_tells_what_is_empty(tmp_path, kind):
    file = write(tmp_path / f"rows.{kind}", ROWS)
    note = f"{file}: rows without text, left out: 2."
    assert read_text(file) == Text("rows", ("a b", "c\u2028d"), notes=(note,))
    with pytest.raises(ta.InvalidText, match="no text under 'body'.* Name the field with --column"):
        read_text(file, "body")


def test_other_forms_of_json(tmp_path):
    file = tmp_path / "a.json"
    for content in ('["a", "b"]', '{"text": "a"}\n{"text": "b"}\n', '[{"text": "a"}, null, {"text": "b"}]'):
        file.write_text(content)
        assert read_text(file).texts == ("a", "b")
    file.write_text('{"text": "a"}')
    assert read_text(file).texts == ("a",)
    for content, sentence in (("[1]", "Item 1 of .* is not an object"), ('[{"text": "a"},]', "is not JSON .*line 1")):
        file.write_text(content)
        with pytest.raises(ta.InvalidText, match=sentence):
            read_text(file)


def test_a_line_without_the_field_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n\n{"body": "b", "id": 1}\n')
    with pytest.raises(ta.InvalidText, match=r"Line 3 of .*a.jsonl has no text under 'text' \(it has 'body', 'id'\)"):
        read_text(file)
    file.write_text('{"text": "a"}\n{"text": ["b"]}\n')
    with pytest.raises(ta.InvalidText, match="Line 2 of .* has no text under 'text' but list"):
        read_text(file)
    file.write_text('{"text": null}\n')
    with pytest.raises(ta.InvalidText, match="has no text under 'text'"):
        read_text(file)


def test_the_byte_that_is_not_utf8_is_counted_from_the_start_of_the_file(tmp_path):
    for kind, line in (("jsonl", b'{"text": "a"}\n'), ("csv", b"text\n")):
        file = tmp_path / f"a.{kind}"
        start = line * (1 + (1 << 20) // len(line))
        file.write_bytes(start + b'{"text": "caf\xe9"}\n')
        with pytest.raises(ta.InvalidText, match=rf"not UTF-8 text \(byte {len(start) + 13:,} cannot"):
            read_text(file)
        file.write_bytes(start + b"\xc3")
        with pytest.raises(ta.InvalidText, match=rf"not UTF-8 text \(byte {len(start):,} cannot"):
            read_text(file)


def test_only_the_wanted_column_is_kept(tmp_path):
    """A file of the user's own may be large: what is not asked for is not held."""
    for kind in ("jsonl", "csv", "parquet"):
        file = write(tmp_path / f"wide.{kind}", [{"text": "a", "other": "x" * 1000}] * 3)
        table = read_table(file, "wide", columns=("text",))
        assert table.requested_column().texts == ("a",) * 3
        assert not table.wants("other") and table.names() == ("text",)


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_conversations_are_read_where_that_is_asked_for(tmp_path, kind):
    file = write(tmp_path / f"chats.{kind}", [{"messages": chat} for chat in CHATS])
    read = read_text(file, chat=True)
    assert read.is_chat and [json.loads(text) for text in read.texts] == CHATS
    assert read_text(file, "messages", chat=True).texts == read.texts
    with pytest.raises(ta.InvalidText, match="--chat"):
        read_text(file)
    with pytest.raises(ta.InvalidText, match="holds conversations. Read them with --chat"):
        read_text(file, "messages")
    plain = write(tmp_path / f"plain.{kind}", [{"text": "a"}])
    assert read_text(plain, chat=True) == Text("plain", ("a",))
    mixed = write(tmp_path / "mixed.jsonl", [{"messages": CHATS[0]}, {"messages": "a"}])
    with pytest.raises(ta.InvalidText, match="Line 2 has a text, unlike the rows before it"):
        read_text(mixed, chat=True)


def test_limits_of_strangers_files(tmp_path):
    file = write(tmp_path / "a.json", [{"text": "a" * 100}])
    with pytest.raises(ta.InvalidText, match="characters; at most 100 are taken as .json. Save it as .jsonl"):
        read_table(file, "a.json", limits=FileLimits(json_characters=100))
    chats = write(tmp_path / "a.parquet", [{"messages": chat} for chat in CHATS])
    with pytest.raises(ta.InvalidText, match="no column of text"):
        read_table(chats, "a.parquet", limits=FileLimits(nested=False)).names()


@pytest.fixture
def answers(monkeypatch, capsys, tmp_path):
    """Run a command on a tiny model that has a chat template; returns its JSON."""
    tokenizer = words_tokenizer("<s> $A")
    tokenizer.chat_template = TEMPLATE
    loaded = replace(build("llama"), tokenizer=tokenizer)
    monkeypatch.setattr(steps, "load", lambda *_: loaded)
    monkeypatch.setattr(steps, "load_or_stream", lambda *_: loaded)
    monkeypatch.chdir(tmp_path)

    def run(*line) -> dict | str:
        code = main([*map(str, line), "--model", "tiny", "--json"])
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err.strip()

    return run


def test_chats_are_scored_and_measured_through_the_template(answers, tmp_path):
    write(tmp_path / "chats.jsonl", [{"messages": chat} for chat in CHATS])
    write(tmp_path / "plain.jsonl", [{"text": "a b c"}])
    scored = answers("score", "--calibration", "chats.jsonl", "--chat", "--num-samples", 2)
    assert scored["calibration"]["protocol"].startswith("each conversation one sequence, by the model's chat template")
    assert (scored["calibration"]["num_samples"], scored["calibration"]["num_tokens"]) == (2, 11)
    pruned = answers("prune", "--calibration", "chats.jsonl", "--chat", "--mlp-sparsity", 0.5,
                     "--evaluation", "plain.jsonl", "--no-speed")  # fmt: skip
    assert pruned["evaluation"]["protocol"].startswith("each text one sequence, BOS in each sequence")
    measured = answers("evaluate", "--evaluation", "chats.jsonl", "--chat", "--no-speed")
    assert measured["evaluation"]["num_tokens"] == 11
    assert answers("score", "--calibration", "plain.jsonl", "--chat").startswith("--chat was given, but no file")
    write(tmp_path / "wrong.jsonl", [{"messages": [{"role": "assistant", "content": "a"}]}])
    assert "roles must alternate" in answers("score", "--calibration", "wrong.jsonl", "--chat")


def test_bos_is_said_and_can_be_overridden(answers, tmp_path):
    write(tmp_path / "plain.jsonl", [{"text": "a b c"}] * 2)
    said = (((), 8, "BOS in each"), (("--no-bos",), 6, "no BOS (left out)"), (("--bos",), 8, "BOS in each"))
    for option, tokens, told in said:
        line = ("evaluate", "--evaluation", "plain.jsonl", "--no-speed", *option)
        record = answers(*line)["evaluation"]
        assert record["num_tokens"] == tokens and told in record["protocol"]


def test_what_was_left_out_and_long_lines_are_told(answers, tmp_path):
    write(tmp_path / "long.jsonl", [{"text": "a b c d " * 100}, {"text": None}])
    values = answers("score", "--calibration", "long.jsonl", "--seq-len", 32)
    # 12 windows of BOS and 31 tokens, and 28 tokens left
    assert (values["calibration"]["num_samples"], values["calibration"]["available_tokens"]) == (12, 413)
    assert values["notes"] == [
        "long.jsonl: rows without text, left out: 1.",
        "long: 128 samples were asked for and the text gives 12. Give more text.",
    ]
    refused = answers("score", "--calibration", "long.jsonl", "--seq-len", 65)
    assert refused == "A sample has 65 tokens and the model's context is 64. Give a seq_len of at most 64."
    write(tmp_path / "fine.jsonl", [{"text": "a b c d"}] * 3)
    assert "notes" not in answers("score", "--calibration", "fine.jsonl", "--num-samples", 3)


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_conversations_nested_without_end_are_left_out(tmp_path, kind):
    """What can just be read may be too deep where it is written, a few calls further down."""
    file = tmp_path / f"a.{kind}"
    for depth in (70, *range(900, 1000, 3)):
        deep = "[" * depth + "]" * depth
        file.write_text(f'{{"text": "a", "messages": [{{"role": "user", "content": "b", "more": {deep}}}]}}')
        try:
            table = read_table(file, file.name)
        except ta.InvalidText as error:
            assert "is not JSON" in str(error) and depth > 900
            continue
        assert table.names() == ("text",)
