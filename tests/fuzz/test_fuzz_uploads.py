"""Uploads: whatever a file holds, texts or one sentence."""

import io
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.strategies import JUNK, ODD_TEXTS, fuzzing, one_sentence, spoiled_bytes
from transact.text import parquet as parquet_module
from ui.errors import WrongInput
from ui.text_sources import uploads

FRAME = pd.DataFrame({"id": [1, 2, 3], "Text": ["one, two", 'with "quotes"', "two\nlines"], "n": [0.5, 1.5, None]})


def parquet(**settings) -> bytes:
    buffer = io.BytesIO()
    FRAME.to_parquet(buffer, **settings)
    return buffer.getvalue()


FILES = {
    "jsonl": [FRAME.to_json(orient="records", lines=True).encode(), '\ufeff{"text": "é\\ud83d\\ude00"}\r\n'.encode()],
    "csv": [FRAME.to_csv(index=False).encode(), b"a;b\n'x';y\n"],
    "parquet": [parquet(), parquet(compression="zstd"), parquet(compression="gzip", row_group_size=1)],
    "txt": [b"One.\n\nTwo.\n", "\ufeffé\r\n\r\nñ".encode()],
}


@pytest.fixture(scope="module", autouse=True)
def in_this_process():
    """What a process of its own does with parquet, without the hundreds of starts; whether it is one is tested there
    (tests/ui/text_sources/test_uploads.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_module, "_isolated", parquet_module._in_process)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


def read(place, kind: str, content: bytes, column: str | None) -> None:
    file = place / f"upload.{kind}"
    file.write_bytes(content)
    for act in (lambda: uploads.text_columns(file), lambda: uploads.uploaded(file, column, 64).texts):
        try:
            assert all(isinstance(text, str) for text in act())
        except WrongInput as error:
            one_sentence(error)


@fuzzing("uploads", 0.75)
@given(st.data(), st.sampled_from(sorted(FILES)), st.one_of(st.none(), ODD_TEXTS, st.just("Text")))
def test_spoiled_files(place, data, kind, column):
    read(place, kind, data.draw(st.sampled_from(FILES[kind]).flatmap(spoiled_bytes)), column)


@fuzzing("uploads", 0.15)
@given(st.lists(JUNK, max_size=5))
def test_lines_of_anything(place, values):
    read(place, "jsonl", "\n".join(map(json.dumps, values)).encode(), None)


@fuzzing("uploads", 0.1)
@given(st.sampled_from(sorted(FILES)), st.binary(max_size=200))
def test_bytes_of_anything(place, kind, content):
    read(place, kind, content, None)
