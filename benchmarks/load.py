"""Many visitors at once on the bundled model, through the endpoints of a real server.

    python -m benchmarks.load [--visitors 20] [--moves 50] [--soak MINUTES] [--url http://127.0.0.1:7860/]
    python -m benchmarks.load --attack MINUTES

- Every visitor scores a text of its own, moves the sliders 50 times, cuts with sparsities of its own, measures on
  another text of its own and downloads. Every number that comes back is held against the library's own, computed
  here beforehand, so a result in another's hands would show. Target: no error, and the 95th percentile of a slider's
  answer under 500 ms.
- With `--soak`, such visitors keep coming, five at a time. The server is told to keep the work of as many visitors as
  those first ones (TRANSACT_SESSIONS), so that from then on every new one's work takes an older one's place. Target:
  its memory, at rest, grows by less than 5 %.
- With `--attack`, instead of all that, hostile visitors come for so long, kind by kind (`benchmarks/attacks.py`), to an
  app that is set up as a public host, while an honest one works (`benchmarks/bystander.py`). Targets for each kind: no
  crash; no answer that the honest visitor should not have; memory of the app and its processes under the budget and
  500 MB; the slider's 95th percentile under 500 ms, and a small job done within 15 s.

Visitors are threads of this process, on the same processor as the server, so its times hold their work as well.
"""

import argparse
import contextlib
import itertools
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from gradio_client import Client
from safetensors import safe_open

import transact as ta
from benchmarks import siege
from benchmarks.harness import publish, table
from tests.e2e.server import running_app
from ui.server import environment
from ui.text_sources import text_source

SLIDER_SECONDS = 0.5
GROWTH = 0.05
_SEQ_LEN, _EVALUATION_LEN = 64, 512
_REPAIRS = ("none", "bias", "least_squares")
_KINDS = ("plan", "gguf", "plan", "gguf", "checkpoint")
_AT_A_TIME = 5
"""Visitors during a soak: enough that they wait for each other, and so few that most of their time is work."""
_RESIDENT = "process_resident_memory_bytes"
_PAUSE = 0.1
"""Seconds between a slider's answer and its next move."""


class Mismatch(AssertionError):
    """A visitor was given a number that is not its own."""


@dataclass(frozen=True)
class Visitor:
    """What one visitor does, and what the library says of that: no two have a text or a sparsity in common."""

    number: int
    text: str
    measured_on: str
    attention: float
    mlp: float
    repair: str
    kind: str
    heads: list[list[float]]
    plan: ta.PruningPlan
    perplexity: float
    dense_perplexity: float


@dataclass
class Times:
    """Seconds of every call by endpoint; all visitors write to it."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def taken(self, endpoint: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        with self.lock:
            self.seconds.setdefault(endpoint, []).append(time.perf_counter() - began)

    def percentile(self, endpoint: str, share: float) -> float:
        taken = sorted(self.seconds[endpoint])
        return taken[min(len(taken) - 1, int(share * len(taken)))]


def crowd(count: int) -> list[Visitor]:
    """`count` visitors, with the library's own numbers for each."""
    loaded = ta.load("bundled")
    stories, others = text_source.sample("stories").texts, text_source.evaluation_sample("stories").texts
    visitors = []
    for number in range(count):
        text = "\n\n".join(stories[3 * number : 3 * number + 3])
        measured_on = "\n\n".join(others[2 * number : 2 * number + 2])
        attention, mlp = (0.0, 0.25, 0.5)[number % 3], 0.1 + 0.8 * number / count
        repair = _REPAIRS[number % len(_REPAIRS)]
        calibration = text_source.calibration_set(
            text_source.pasted(text, _SEQ_LEN), loaded, num_samples=16, seq_len=_SEQ_LEN, seed=0
        )
        observed = ta.observe(loaded, calibration, gram=ta.REPAIRS[repair].needs_grams)
        scores = ta.score(loaded, observed)
        target = ta.PruningTarget.from_sparsity(loaded.spec, attention=attention, mlp=mlp)
        plan = ta.make_plan(scores, loaded.spec, target)
        pruned = ta.prune(loaded, plan, compensation=repair, statistics=observed)
        evaluation = text_source.evaluation_set(
            text_source.pasted(measured_on, _EVALUATION_LEN), loaded, seq_len=_EVALUATION_LEN, num_samples=None
        )
        visitors.append(
            Visitor(
                number, text, measured_on, attention, mlp, repair, _KINDS[number % len(_KINDS)],
                heads=[heads.tolist() for heads in scores.heads],
                plan=plan,
                perplexity=ta.perplexity(pruned, evaluation),
                dense_perplexity=ta.perplexity(loaded, evaluation),
            )
        )  # fmt: skip
    return visitors


def visit(url: str, visitor: Visitor, *, moves: int, times: Times) -> None:
    """The whole way of one visitor. Raises `Mismatch` for a number that is not its own, and what the app refuses."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(_client(url, folder)) as client:

        def call(endpoint: str, **arguments):
            with times.taken(endpoint):
                return client.predict(api_name=endpoint, **arguments)

        scores = call("/score", text=visitor.text, metric="transact", num_samples=16, seq_len=_SEQ_LEN)
        _same(visitor, "scores", [layer["heads"] for layer in scores["layers"]], visitor.heads)
        for move in range(moves):
            passing = visitor.mlp + 0.09 * (moves - 1 - move) / max(1, moves - 1)  # and comes to rest where it belongs
            summary = call("/plan", attention_sparsity=visitor.attention, mlp_sparsity=passing, allocation="uniform")
            _same(visitor, "the slider", summary["requested"]["mlp_sparsity"], passing)
            time.sleep(_PAUSE)
        after = visitor.plan.summary()["after"]
        _same(visitor, "the plan", summary["after"], after)
        _same(visitor, "the cut", call("/prune", repair=visitor.repair)["after"], after)
        report = call("/evaluate", text=visitor.measured_on)
        _same(visitor, "perplexity", report["perplexity"], visitor.perplexity)
        _same(visitor, "dense perplexity", report["reference_perplexity"], visitor.dense_perplexity)
        plan = ta.PruningPlan.from_json(Path(call("/export", kind="plan")).read_text(encoding="utf-8"))
        _same(visitor, "the plan's file", plan.layers, visitor.plan.layers)
        if visitor.kind != "plan":
            file = Path(call("/export", kind=visitor.kind))
            _check_file(visitor, file)


def _client(url: str, folder: str) -> Client:
    # over http there are no certificates to check, and reading them takes the client 50 ms a call
    return Client(url, verbose=False, download_files=folder, ssl_verify=False)


def _check_file(visitor: Visitor, file: Path) -> None:
    """The file holds the visitor's own plan and as many channels as that keeps."""
    width = visitor.plan.spec.layers[0].intermediate_size
    if visitor.kind == "gguf":
        from gguf import GGUFReader

        (found,) = GGUFReader(file).fields["llama.feed_forward_length"].parts[-1].tolist()[:1]
        _same(visitor, "the GGUF file", found, width)
        return
    with zipfile.ZipFile(file) as zipped:
        zipped.extractall(file.parent)
    (plan,) = file.parent.rglob("plan.json")
    _same(visitor, "plan.json", ta.PruningPlan.from_json(plan.read_text()).layers, visitor.plan.layers)
    with safe_open(plan.with_name("model.safetensors"), "pt") as weights:
        _same(visitor, "the weights", weights.get_slice("model.layers.0.mlp.down_proj.weight").get_shape()[1], width)


def _same(visitor: Visitor, what: str, given, expected) -> None:
    if given != expected and not _close(given, expected):
        raise Mismatch(f"Visitor {visitor.number} was given {given} for {what}; its own is {expected}.")


def _close(given, expected) -> bool:
    if isinstance(expected, list):
        return len(given) == len(expected) and all(map(_close, given, expected))
    return isinstance(expected, float) and abs(given - expected) <= 1e-4 * abs(expected)


def all_at_once(url: str, visitors: list[Visitor], *, moves: int) -> Times:
    """Every visitor in a thread of its own; raises the first one's error, after all have left."""
    times = Times()
    with ThreadPoolExecutor(len(visitors)) as pool:
        visits = [pool.submit(visit, url, visitor, moves=moves, times=times) for visitor in visitors]
    for done in visits:
        done.result()
    return times


@dataclass(frozen=True)
class Soak:
    """Resident bytes of the server, once a second while visitors came and went, and at rest before and after.

    At work it takes some tens of megabytes more than it holds, now and again, so that only rest tells of growth.
    """

    seconds: float
    visits: int
    resident: list[int]
    before: int
    after: int

    @property
    def growth(self) -> float:
        """As a share of what was held before."""
        return self.after / self.before - 1


def remembering(visitors: list[Visitor]) -> dict[str, str]:
    """The setting of a server that keeps the work of so many visitors and no more."""
    return {environment.SESSIONS: str(len(visitors))}


def soak(url: str, visitors: list[Visitor], *, minutes: float, moves: int) -> Soak:
    """Let visitors come for so long, a few at a time, each to a session of its own."""
    times, resident, before, began = Times(), [], _at_rest(url), time.monotonic()
    until, following = began + 60 * minutes, itertools.count()

    def come_and_go() -> None:
        while time.monotonic() < until:
            visit(url, visitors[next(following) % len(visitors)], moves=moves, times=times)

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        coming = [pool.submit(come_and_go) for _ in range(_AT_A_TIME)]
        while time.monotonic() < until:
            resident.append(int(gauges(url)[_RESIDENT]))
            time.sleep(1)
    for done in coming:
        done.result()
    return Soak(time.monotonic() - began, next(following), resident, before, _at_rest(url))


def _at_rest(url: str) -> int:
    """Resident bytes once no job is left."""
    while any(gauges(url)[f"transact_jobs_{state}"] for state in ("running", "waiting")):
        time.sleep(0.2)
    time.sleep(1)
    return int(gauges(url)[_RESIDENT])


def gauges(url: str) -> dict[str, float]:
    """The server's `/metrics` by name and labels."""
    with urllib.request.urlopen(f"{url}metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def report(times: Times) -> str:
    rows = [
        [
            endpoint,
            str(len(taken)),
            *(f"{1000 * times.percentile(endpoint, share):,.0f} ms" for share in (0.5, 0.95)),
            f"{1000 * max(taken):,.0f} ms",
        ]
        for endpoint, taken in times.seconds.items()
    ]
    return table(["endpoint", "calls", "median", "95 %", "longest"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--moves", type=int, default=50, help="slider moves of each")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES", help="let visitors come for so long")
    parser.add_argument("--url", help="a running server; by default one is started")
    parser.add_argument("--attack", type=float, default=0, metavar="MINUTES", help="let hostile visitors come instead")
    given = parser.parse_args()
    if given.attack:
        outcomes = siege.besiege(60 * given.attack / len(siege.ATTACKS))
        publish("attack", "Hostile visitors", siege.report(outcomes), siege.figures(outcomes))
        return
    visitors = crowd(given.visitors)
    with contextlib.ExitStack() as stack:
        url = given.url or stack.enter_context(running_app(Path(tempfile.mkdtemp()) / "app.log", remembering(visitors)))
        times = all_at_once(url, visitors, moves=given.moves)
        slider = times.percentile("/plan", 0.95)
        lines = [
            report(times),
            "",
            f"95 % of the slider's answers: {1000 * slider:.0f} ms (target: {1000 * SLIDER_SECONDS:.0f} ms)",
        ]
        figures = {"visitors": given.visitors, "moves": given.moves, "slider_95th_seconds": slider}
        if given.soak:
            soaked = soak(url, visitors, minutes=given.soak, moves=given.moves)
            lines.append(
                f"Soak: {soaked.visits} visits in {soaked.seconds / 60:.1f} minutes, memory at rest "
                f"{soaked.before / 1e6:,.0f} MB before and {soaked.after / 1e6:,.0f} MB after, growth "
                f"{100 * soaked.growth:+.1f} % (target: under {GROWTH:.0%}); at work up to "
                f"{max(soaked.resident) / 1e6:,.0f} MB"
            )
            figures["soak"] = {
                "minutes": given.soak, "visits": soaked.visits, "before_bytes": soaked.before,
                "after_bytes": soaked.after, "growth": soaked.growth,
                "resident_bytes": soaked.resident[:: max(1, len(soaked.resident) // 200)],
            }  # fmt: skip
        publish("load", f"{given.visitors} visitors at once", "\n".join(lines), figures)


if __name__ == "__main__":
    main()
