"""What the page says before scoring: from a text's beginning, once a text, one visitor at a time."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

import transact as ta
from tests.e2e.server import running_app
from tests.peaks import growth
from transact.text import encoding
from ui.server import limits
from ui.state.session import BUNDLED, Sampling, Session
from ui.text_sources import text_source, uploads
from ui.text_sources.text_source import TextSource
from ui.work import scoring, text_extent
from ui.work.registry import Registry

LINE = "One day, a little fox went to the river to look at the fish. "


@pytest.fixture(scope="module")
def registry():
    from ui.work.jobs import Watch

    registry = Registry()
    registry.dense(BUNDLED, Watch("Loading"))
    return registry


@pytest.fixture(scope="module")
def session(registry):
    return Session("a visitor", BUNDLED, registry.in_memory(BUNDLED).spec, None)


@pytest.fixture
def read(monkeypatch):
    """Characters that tokenizers were given."""
    given, encode = [], encoding.encode

    def counted(some, tokenizer, **settings):
        given.append(sum(map(len, some)))
        return encode(some, tokenizer, **settings)

    monkeypatch.setattr(encoding, "encode", counted)
    return given


def big_upload(place, rows: int = 265_000) -> str:
    file = place / "big.jsonl"
    with file.open("w") as opened:
        for number in range(rows):
            opened.write(json.dumps({"text": f"{LINE}{number}"[-60:]}) + "\n")
    assert 15_000_000 < file.stat().st_size < limits.MAX_UPLOAD_BYTES
    return str(file)


@pytest.mark.slow
def test_a_large_upload_is_estimated_from_its_beginning_and_once(tmp_path, registry, session, read):
    file = big_upload(tmp_path)
    with growth() as grown:
        source = uploads.uploaded(file, None, 256)
        first = scoring.estimate(registry, session, source, Sampling())
        for _ in range(3):
            again = scoring.estimate(registry, session, uploads.uploaded(file, None, 256), Sampling(taylor=True))
    assert sum(read) <= limits.MAX_ESTIMATED_CHARACTERS
    assert grown() < 250_000_000, grown
    assert first.amount == again.amount
    assert first.amount.startswith("about 128 sequences, ")


def test_a_file_is_parsed_once(tmp_path, monkeypatch):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a", "title": "b"}\n')
    assert uploads.known_columns(file) == ()
    assert uploads.text_columns(file) == ("text", "title")
    monkeypatch.setattr(uploads, "read_table", lambda *args, **settings: pytest.fail("it was parsed again"))
    assert uploads.known_columns(file) == ("text", "title")
    assert uploads.uploaded(file, "title", 64).texts == ("b",)
    assert uploads.uploaded(file, "text", 64).texts == ("a",)
    file.write_text('{"text": "another"}\n')
    with pytest.raises(pytest.fail.Exception, match="parsed again"):
        uploads.text_columns(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "sampling"),
    [
        (TextSource("rows", tuple(f"{LINE * (1 + number % 3)}{number}" for number in range(9000)), "file"), Sampling()),
        (TextSource("document", (LINE * 9000,), "file", is_document=True), Sampling(seq_len=128)),
        (TextSource("few", tuple(LINE * 1500 for _ in range(9)), "file"), Sampling(num_samples=200, seq_len=128)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_is_told_is_about_what_is_read(registry, text, sampling):
    loaded = registry.in_memory(BUNDLED)
    told = text_extent.of(text, text.beginning(limits.MAX_ESTIMATED_CHARACTERS), loaded, sampling)
    real = text_extent.calibration(text, loaded, sampling)
    assert told.amount.startswith(f"about {real.num_samples:,} sequences, ")
    assert told.tokens == pytest.approx(real.num_tokens, rel=0.15)
    assert told.longest == pytest.approx(real.input_ids.shape[1], rel=0.1)
    assert float(told.amount.split("of about ")[1].rstrip(")").replace(",", "")) == pytest.approx(
        real.available_tokens, rel=0.1
    )


def test_a_short_text_is_counted(registry, session):
    text = text_source.sample("mixed")
    run = scoring.estimate(registry, session, text, Sampling())
    calibration = text_extent.calibration(text, registry.in_memory(BUNDLED), Sampling())
    assert (run.amount, run.notes) == (calibration.amount, calibration.notes)


def test_a_beginning():
    text = TextSource("rows", ("abc", "de", "f"), "file")
    assert text.beginning(6) is text
    assert text.beginning(5).texts == ("abc", "de")
    assert text.beginning(4).texts == ("abc",)
    assert text.beginning(2).texts == ("ab",)
    chats = TextSource("chats", ('[{"role": "user"}]', "[]"), "file", is_chat=True)
    assert chats.beginning(2).texts == ('[{"role": "user"}]',)


def test_events_that_read_a_strangers_text_go_one_at_a_time_beside_the_sliders(page):
    """Who waits for another visitor's estimate keeps no thread, and no slider waits for it."""
    names = {"on_form", "on_upload"}
    found = [block for block in page.fns.values() if getattr(block.fn, "__name__", "") in names]
    reading = [block for block in found if block.fn.__module__ in ("ui.events.load_and_score", "ui.events.measure")]
    assert {block.fn.__name__ for block in reading} == names
    assert {(block.concurrency_id, block.concurrency_limit) for block in reading} == {("texts", 1)}
    others = [block for block in page.fns.values() if block not in reading]
    assert "texts" not in {block.concurrency_id for block in others}


def test_a_file_of_too_many_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TEXTS", 2)
    file = tmp_path / "a.csv"
    file.write_text("text\na\nb\nc\n")
    with pytest.raises(ta.TransactError, match="a.csv has 3 texts; at most 2 are taken. Upload a part of it."):
        uploads.uploaded(file, None, 64)


@pytest.mark.exhaustive
def test_another_visitors_slider_meanwhile(page, tmp_path):
    """Eight visitors change their forms at once, over a file as large as any: it took 47 s and 6.7 GB."""
    (form,) = (index for index, block in page.fns.items() if is_estimate(block))
    with running_app(tmp_path / "app.log") as url, httpx.Client(base_url=url, timeout=120) as web:
        file, client, seconds = upload(web, Path(big_upload(tmp_path))), Client(url, verbose=False), []
        client.predict(attention_sparsity=0.25, mlp_sparsity=0.5, api_name="/plan")
        before = grown = web.get("healthz").json()["resident_bytes"]
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(estimated, url, form, file, number) for number in range(8)]
            while not all(each.done() for each in asked) or len(seconds) < 10:
                began = time.monotonic()
                client.predict(attention_sparsity=0.25, mlp_sparsity=0.5, api_name="/plan")
                seconds.append(time.monotonic() - began)
                grown = max(grown, web.get("healthz").json()["resident_bytes"])
                time.sleep(0.1)
        answered = [each.result() for each in asked]
    assert all("A run reads about" in answer for answer in answered), answered
    assert grown - before < 400_000_000
    assert sorted(seconds)[int(0.95 * len(seconds))] < 1.0, seconds


def is_estimate(block) -> bool:
    return getattr(block.fn, "__name__", "") == "on_form" and block.concurrency_id == "texts" and len(block.targets) > 1


def upload(web: httpx.Client, file: Path) -> str:
    with file.open("rb") as opened:
        (path,) = web.post("gradio_api/upload", files={"files": opened}).json()
    return path


def estimated(url: str, form: int, path: str, number: int) -> str:
    """The answer to one change of a form, as the page asks for it."""
    visitor = f"estimates-{number}"
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    values = ["upload", "", file, None, "", "", "train", "", 128, 64 + number % 2, 0, False]
    body = {"data": values, "fn_index": form, "session_hash": visitor, "event_data": None, "trigger_id": None}
    with httpx.Client(base_url=url, timeout=120) as web:
        web.post("gradio_api/queue/join", json=body).raise_for_status()
        with web.stream("GET", "gradio_api/queue/data", params={"session_hash": visitor}) as lines:
            for line in lines.iter_lines():
                if "process_completed" in line:
                    return line
    return ""
