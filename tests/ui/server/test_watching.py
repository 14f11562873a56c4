"""What a host sees of a real server: its log, /healthz and /metrics; and that no visitor's words are in them."""

import io
import json
import logging
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import transact as ta
from tests.e2e.server import running_app
from ui.server.telemetry import JsonLines, Telemetry
from ui.work.jobs import Jobs

pytestmark = pytest.mark.slow

FOLDER = str(Path(ta.__file__).resolve().parents[1] / "assets" / "model")
SECRET = "zanzibar"
"""A word that no visitor would want to find in a log."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server whose memory budget two models of 10.8 MB do not fit in, and its log."""
    log = tmp_path_factory.mktemp("watched") / "app.log"
    with running_app(log, {"TRANSACT_MEMORY_BUDGET": "40MB"}) as url:
        yield url, log


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


def once(url: str, told: Callable[[dict], bool]) -> dict:
    """What `/healthz` says as soon as that is so."""
    until = time.monotonic() + 180
    while not told(health := json.loads(get(f"{url}healthz"))):
        assert time.monotonic() < until, health
        time.sleep(0.1)
    return health


def counters(url: str) -> dict[str, float]:
    lines = [line for line in get(f"{url}metrics").splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def events(log: Path) -> list[dict]:
    """The log's lines but the greetings, which go to stdout."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [json.loads(line) for line in lines if not line.startswith(("* ", "TransAct Explorer listens"))]


@pytest.mark.long
def test_work_is_logged_and_counted_without_the_visitors_words(served, tmp_path):
    url, log = served
    client = Client(url, verbose=False)
    text = "\n\n".join(f"The {SECRET} told {name} about the small red house." for name in ("Tom", "Mia", "Ben"))
    client.predict(text=text, metric="transact", num_samples=4, seq_len=24, api_name="/score")
    client.predict(repair="none", api_name="/prune")
    client.predict(prompt=f"The {SECRET} said", api_name="/generate")
    secret_folder = tmp_path / SECRET
    secret_folder.mkdir()
    with pytest.raises(AppError, match=SECRET):
        client.predict(source=str(secret_folder), api_name="/load_model")
    for dtype_copy in range(3):
        copy = tmp_path / f"{SECRET}-{dtype_copy}"
        copy.symlink_to(FOLDER)
        client.predict(source=str(copy), api_name="/load_model")

    logged = events(log)
    assert SECRET not in log.read_text(encoding="utf-8") and SECRET not in get(f"{url}metrics")
    assert [event["event"] for event in logged].count("started") == 1
    (pruned,) = [event for event in logged if event["event"] == "job finished" and event["kind"] == "prune"]
    assert pruned["parameters"] == ta.load("bundled").spec.num_parameters
    assert pruned["seconds"] > 0 and pruned["waited_seconds"] >= 0 and pruned["resident_bytes"] > 10**8
    (failed,) = [event for event in logged if event["event"] == "job failed"]
    assert (failed["kind"], failed["error"]) == ("fetch", "CheckpointBroken")
    evicted = [event for event in logged if event["event"] == "evicted"]
    assert {event["what"] for event in evicted} >= {"pruned", "dense"}
    for event in logged:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", event["time"]) and event["level"]

    counted = counters(url)
    assert counted['transact_jobs_total{kind="load",outcome="finished"}'] == 3
    assert counted['transact_jobs_total{kind="fetch",outcome="failed"}'] == 1
    assert counted['transact_job_seconds_total{kind="generate"}'] > 0
    dropped = sum(value for name, value in counted.items() if name.startswith("transact_evictions_total"))
    assert dropped == len(evicted) > 0
    assert counted["transact_held_bytes"] <= counted["transact_budget_bytes"] == 32 * 10**6  # four fifths


@pytest.mark.exhaustive
def test_health_answers_at_once_while_visitors_wait_for_each_other(served):
    url, _ = served
    clients = [Client(url, verbose=False) for _ in range(3)]
    # ten seconds and more of work, so that the others are in line long before it ends
    jobs = [clients[0].submit(repair="best", api_name="/prune")]
    once(url, lambda health: health["jobs_running"] == 1)
    jobs += [client.submit(repair="none", api_name="/prune") for client in clients[1:]]
    health = once(url, lambda health: health["jobs_waiting"] == 2)
    assert health["status"] == "ok" and health["version"] == ta.__version__
    assert health["jobs_running"] == 1 and health["models"] >= 1 and health["uptime_seconds"] > 0
    taken = []
    while not jobs[0].done():
        began = time.perf_counter()
        json.loads(get(f"{url}healthz"))
        taken.append(time.perf_counter() - began)
        time.sleep(0.05)
    assert len(taken) > 5 and sorted(taken)[int(0.9 * len(taken))] < 3  # the job takes longer by far
    for job in jobs:
        job.result(timeout=120)
    assert json.loads(get(f"{url}healthz"))["jobs_running"] == 0


@pytest.mark.long
def test_every_family_of_metrics_says_what_it_is(served):
    url, _ = served
    text = get(f"{url}metrics")
    families = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    helped = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# HELP")}
    assert families == helped and "process_resident_memory_bytes" in families


class TestLog:
    @pytest.fixture
    def written(self):
        """What a logger of ours and one of a library write, by name."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines())
        loggers = [logging.getLogger(name) for name in ("ui.server.telemetry", "somebody.else")]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True

    def test_a_librarys_words_are_left_out(self, written):
        logging.getLogger("somebody.else").warning("cannot read %s", SECRET)
        (line,) = written()
        assert line["event"] == "library message" and line["logger"] == "somebody.else"
        assert SECRET not in json.dumps(line)

    def test_an_errors_class_and_place_are_kept_and_its_message_is_not(self, written):
        def fails(watch):
            raise ValueError(SECRET)

        with pytest.raises(ValueError):
            Jobs(Telemetry()).finish("a", f"Reading {SECRET}", fails, kind="score")
        started, failed = written()
        assert (started["event"], failed["event"], failed["error"]) == ("job started", "job failed", "ValueError")
        assert failed["at"][-1].startswith("test_watching.py:") and failed["at"][-1].endswith(" fails")
        assert SECRET not in json.dumps([started, failed])

    def test_who_gives_up_waiting_is_counted_apart_from_work(self, written):
        telemetry = Telemetry()
        jobs, release = Jobs(telemetry), threading.Event()
        first = jobs.run("a", "First", lambda watch: release.wait(10), kind="prune")
        next(first)
        second = jobs.run("b", "Second", lambda watch: None, kind="score")
        assert next(second).before == 1
        jobs.stop("b")
        with pytest.raises(ta.Cancelled):
            list(second)
        left = jobs.run("c", "Third", lambda watch: None, kind="score")
        next(left)
        left.close()
        assert jobs.waiting == 0
        release.set()
        list(first)
        counted = {(name, dict(labels)["kind"]): value for (name, labels), value in telemetry.counters().items()}
        assert (counted["transact_jobs_total", "score"], counted["transact_jobs_total", "prune"]) == (2, 1)
        assert counted["transact_job_seconds_total", "score"] == 0
        assert counted["transact_job_waited_seconds_total", "score"] > 0
        assert [line["event"] for line in written()] == ["job started", *2 * ["job cancelled"], "job finished"]
