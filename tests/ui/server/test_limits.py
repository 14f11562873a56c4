"""Limits, and that every entrance asks for them: the page's form, the endpoints, a link."""

import math

import pytest

from ui.errors import WrongInput
from ui.events.measure import prompt_text
from ui.server import limits
from ui.state import settings_link
from ui.state.session import Sampling
from ui.text_sources import uploads
from ui.work import measuring


@pytest.mark.parametrize("value", [None, True, "4", 0, 11, 1.5, math.nan, math.inf, -math.inf, 10**400, [1], {}])
def test_whole_numbers(value):
    assert limits.whole("n", 10.0, 1, 10) == 10
    with pytest.raises(WrongInput, match="^n is .{1,90}; give a whole number from 1 to 10.$"):
        limits.whole("n", value, 1, 10)


@pytest.mark.parametrize("value", [None, True, "0.5", 1, -0.1, math.nan, math.inf, [0.5]])
def test_sparsities(value):
    assert limits.share_removed("MLP", 0) == 0.0
    with pytest.raises(WrongInput, match="at least 0 and below 1"):
        limits.share_removed("MLP", value)


@pytest.mark.parametrize(("value", "reason"), [(None, "give a text"), (5, "give a text"), ("\ud800", "half a char")])
def test_texts(value, reason):
    assert limits.name("n", " a b ") == "a b"
    with pytest.raises(WrongInput, match=reason):
        limits.text("n", value)
    with pytest.raises(WrongInput, match="at most 1,000"):
        limits.name("n", "x" * 1001)


@pytest.mark.parametrize("value", [None, True, "0.1", 0, 1.5, -0.1, math.nan, math.inf, 10**400, [0.5], {}])
def test_rates(value):
    assert limits.rate("The rate", 1) == 1.0
    with pytest.raises(WrongInput, match="^The rate is .{1,90}; give a number above 0 and up to 1"):
        limits.rate("The rate", value)


@pytest.mark.parametrize("kind", limits.RANGES)
def test_every_kind_of_number_has_both_ends(kind):
    low, high = limits.RANGES[kind]
    assert limits.counted(kind, "n", low) == low and limits.counted(kind, "n", float(high)) == high
    for value in (low - 1, high + 1, 1e18, "1", None):
        with pytest.raises(WrongInput, match="give a whole number from"):
            limits.counted(kind, "n", value)


def test_a_click_beside_the_map_is_the_nearest_place_and_one_nowhere_is_none():
    assert [limits.place("p", value, 4) for value in (-3, 1.4, "2", 1e300)] == [0, 1, 2, 3]
    for value in (None, "x", "9" * 6000, math.nan, math.inf, [], {}):
        with pytest.raises(WrongInput, match="which is no place there; click again"):
            limits.place("p", value, 4)


@pytest.mark.parametrize("value", [None, [], ["a"], {}, 1, "c", "x" * 10_000])
def test_a_choice_is_one_of_the_names(value):
    assert limits.one_of("letter", "a", {"a": 1, "b": 2}) == "a"
    with pytest.raises(WrongInput, match="^There is no letter “.{1,80}”; choose one of a, b.$"):
        limits.one_of("letter", value, {"a": 1, "b": 2})


LINK = {"model": "bundled"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"samples": "4097"}, "from 1 to 4,096"),
        ({"samples": "-1"}, "from 1 to 4,096"),
        ({"length": "1000000000"}, "from 1 to 8,192"),
        ({"samples": "4096", "length": "8192"}, "at most 4,194,304 are read"),
        ({"seed": "-1"}, "from 0 to"),
        ({"attention": "nan"}, "below 1"),
        ({"mlp": "1"}, "below 1"),
        ({"limit": "memory:inf"}, "above 0 and at most 1"),
        ({"limit": "memory:0"}, "above 0 and at most 1"),
        ({"dtype": "int8"}, "dtype"),
        ({"model": "x" * 2000}, "at most 1,000"),
        ({"model": "\ud800"}, "half a character"),
        ({"revision": "x" * 2000}, "at most 1,000"),
        ({"samples": "1e12"}, "copy the link again"),
        ({"samples": "9" * 6000}, "copy the link again"),
        ({"groups": "9" * 4000, "channels": "1"}, "a number of many digits; give a whole number from 1"),
        ({"groups": "-1", "channels": "1"}, "give a whole number from 1"),
        ({"keep_channels": "9" * 6000 + ".1"}, "copy the link again"),
        ({"keep_channels": "9" * 4000 + ".1"}, "a number of many digits; give a whole number from 0"),
        ({"remove_head_groups": "0.-1"}, "give a whole number from 0"),
    ],
)
def test_a_link_asks_for_no_more_than_the_page_allows(changes, sentence):
    assert settings_link.settings(LINK).sampling == Sampling()
    with pytest.raises(WrongInput, match=sentence):
        settings_link.settings(LINK | changes)


def test_a_prompt_and_an_evaluation_text_have_an_end(monkeypatch):
    assert prompt_text(None) == ""
    with pytest.raises(WrongInput, match="at most 100,000"):
        prompt_text("x" * 100_001)
    with pytest.raises(WrongInput, match="give a text"):
        prompt_text({"a": 1})
    import transact as ta
    from ui.text_sources import text_source

    monkeypatch.setattr(limits, "MAX_MEASURED_TOKENS", 100)
    with pytest.raises(WrongInput, match="tokens; at most 100 are taken"):
        measuring.evaluation_set(text_source.evaluation_sample("mixed"), ta.load("bundled"))


def test_columns_without_end(tmp_path):
    """A column a row: as a table, rows times columns."""
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"c{number}": "x"}}\n' for number in range(200_000)))
    with pytest.raises(WrongInput, match="more than 1,000 columns"):
        uploads.uploaded(file, None, 64)
    file = tmp_path / "a.csv"
    file.write_text(",".join(f"c{number}" for number in range(200_000)) + "\nx\n")
    with pytest.raises(WrongInput, match="more than 1,000 columns"):
        uploads.uploaded(file, None, 64)
    file.write_text("text\n" + "x," * 2_000_000 + "\n")
    with pytest.raises(WrongInput, match="more cells than its first line has names"):
        uploads.uploaded(file, None, 64)


def test_a_wide_field_and_a_deep_object(tmp_path):
    wide = tmp_path / "a.csv"
    wide.write_text('text\n"' + "word " * 2_000_000 + '"\n')
    assert len(uploads.uploaded(wide, None, 64).texts[0]) == 10_000_000
    deep = tmp_path / "a.jsonl"
    deep.write_text('{"text": "a", "b": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(WrongInput, match="is not JSON"):
        uploads.uploaded(deep, None, 64)
    deep.write_text('{"text": "a", "b": [' + "[]," * 1_500_000 + "[]]}\n")
    with pytest.raises(WrongInput, match="characters; at most"):
        uploads.uploaded(deep, None, 64)


def test_a_cell_may_hold_line_ends_of_every_kind(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes('text,n\r\none\u2028still one\x85,1\r\n"two\r\nlines",2\r\n'.encode())
    assert uploads.uploaded(file, "text", 64).texts == ("one\u2028still one\x85", "two\r\nlines")


@pytest.mark.slow
def test_a_parquet_that_declares_gigabytes_is_not_unpacked(tmp_path, monkeypatch):
    import pyarrow
    from pyarrow import parquet

    file = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["x" * 30_000_000]}), file, compression="zstd", use_dictionary=False)
    assert file.stat().st_size < 100_000
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 20_000_000)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *args, **settings: pytest.fail("it was unpacked"))
    with pytest.raises(WrongInput, match="unpacks to more than 20 MB"):
        uploads.uploaded(file, None, 64)
