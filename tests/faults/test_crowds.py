"""What one visitor sends by the hundred to a page that everybody reaches: memory, log and the others' answers hold.

A real server in a process of its own. Limits leave room for a machine half as fast; what each was before it was bounded
stands beside it.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlparse

import httpx
import pytest
from gradio_client import Client

from tests.e2e.server import app_process

pytestmark = pytest.mark.long

SECRET = "zanzibar"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """The address of a page that others reach, its temporary folder, and its log."""
    folder, log = tmp_path_factory.mktemp("public"), tmp_path_factory.mktemp("log") / "app.log"
    settings = {"GRADIO_SERVER_NAME": "0.0.0.0", "TMPDIR": str(folder), "TRANSACT_DISK_BUDGET": "800MB"}
    with app_process(log, settings) as (url, _):
        with httpx.Client() as client:
            client.post(f"{url}gradio_api/call/plan", json={"data": [0.5, 0.5, "uniform"]})
        yield url, folder, log


def health(url: str) -> dict:
    return httpx.get(f"{url}healthz", timeout=60).json()


@contextmanager
def watched(url: str) -> Iterator[dict]:
    """Meanwhile, how long `/healthz` and another visitor's slider take in seconds, and the memory in bytes."""
    other, over = Client(url, verbose=False), threading.Event()
    other.predict(attention_sparsity=0.25, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
    before = health(url)["resident_bytes"]
    found = {"health": [], "slider": [], "grown": 0}

    def look() -> None:
        while not over.is_set():
            began = time.perf_counter()
            found["grown"] = max(found["grown"], health(url)["resident_bytes"] - before)
            found["health"].append(time.perf_counter() - began)
            began = time.perf_counter()
            other.predict(attention_sparsity=0.25, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
            found["slider"].append(time.perf_counter() - began)
            time.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield found
        finally:
            over.set()
            looking.result(timeout=120)
            print({name: max(value) if isinstance(value, list) else value for name, value in found.items()})


def test_requests_that_are_too_long_cost_nothing(public):
    """Each took 70 MB of memory and 31 MB of the log for good."""
    url, _, log = public
    logged = log.stat().st_size
    body = json.dumps({"data": [SECRET * 4_000_000], "fn_index": 1, "session_hash": "long"}).encode()
    with watched(url) as found, httpx.Client(timeout=60) as client:
        for _ in range(20):
            with suppress(httpx.WriteError, httpx.ReadError):  # refused before all was sent
                assert client.post(f"{url}gradio_api/queue/join", content=body).status_code == 413
    assert found["grown"] < 100 * MEGABYTE
    assert log.stat().st_size - logged < 10_000


def test_errors_quote_nobody_in_the_log_and_little_in_the_answer(public):
    url, _, log = public
    logged = log.stat().st_size
    long = SECRET * (5 * MEGABYTE // len(SECRET))
    headers = {"content-type": "application/json"}
    with watched(url) as found, httpx.Client(timeout=60, base_url=url) as client:
        config = client.get("config").json()
        events = [event for event in config["dependencies"] if event["inputs"] and event["queue"] is not False]
        for number, event in enumerate(events[:30]):
            data = [long] + [SECRET] * (len(event["inputs"]) - 1)
            body = {"data": data, "fn_index": event["id"], "session_hash": f"quoting {number}"}
            joined = client.post("gradio_api/queue/join", content=json.dumps(body), headers=headers)
            if joined.status_code != 200:
                assert len(joined.content) < 5_000
                continue
            with client.stream("GET", f"gradio_api/queue/data?session_hash=quoting {number}") as answers:
                for line in answers.iter_lines():
                    if "process_completed" in line:
                        told = json.loads(line.removeprefix("data: "))
                        assert told["success"] or len(told["output"]["error"] or "") < 2_000
                        break
        refused = client.post("gradio_api/queue/join", json={"data": long, "session_hash": SECRET})
        assert refused.status_code == 422 and len(refused.content) < 5_000
    assert SECRET not in log.read_text(encoding="utf-8") and log.stat().st_size - logged < 200_000
    assert found["grown"] < 300 * MEGABYTE


def test_heartbeats_that_end_by_the_hundred_hold_nobody_up(public):
    """The loop stood still for 20 s, as gradio described the whole page for each name that left."""
    url, _, _ = public
    place = urlparse(url)
    with watched(url) as found:
        opened = []
        for number in range(600):
            beat = socket.create_connection((place.hostname, place.port))
            beat.sendall(f"GET /gradio_api/heartbeat/gone{number} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            opened.append(beat)
        for beat in opened:
            beat.settimeout(60)
            assert beat.recv(1000)[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 503")  # or told to come again
        for beat in opened:
            beat.close()
        time.sleep(3)
    assert max(found["health"]) < 10 and found["grown"] < 100 * MEGABYTE


def test_work_cannot_be_asked_for_around_the_queue(public):
    url, _, _ = public
    answer = httpx.post(f"{url}gradio_api/run/prune", json={"data": ["none"]}, timeout=60)
    assert answer.status_code == 404


def test_uploads_that_are_broken_off_and_without_end_are_bounded(public):
    """They stayed for ever."""
    url, folder, _ = public
    place, most = urlparse(url), 0
    sent = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n' + b"a" * 10 * MEGABYTE
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 20000000\r\n"
    for _ in range(30):
        upload = socket.create_connection((place.hostname, place.port))
        with suppress(OSError):
            upload.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode() + sent)
        upload.close()
        most = max(most, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
    assert most < 0.25 * 800 * MEGABYTE + 20 * MEGABYTE
    told = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.txt", b"a story")}, timeout=60)
    assert told.status_code == 413 and "no room for more" in told.text and str(folder) not in told.text
    assert health(url)["status"] == "ok"
