"""What an honest visitor, and the machine, notice while something else goes on with the app."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
from gradio_client import Client

TEXT = "A fox met a crow by the river.\n\nThe crow sang, and the fox went home with the cheese."
_PAUSE = 0.2


@dataclass
class Noticed:
    """Seconds of every slider's answer, small job and `/healthz`; bytes of the process (and its children) at most."""

    slider: list[float] = field(default_factory=list)
    job: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    errors: list[str] = field(default_factory=list)

    def slider_95th(self) -> float:
        """Infinite where no slider was answered."""
        return sorted(self.slider)[int(0.95 * (len(self.slider) - 1))] if self.slider else float("inf")

    def longest_job(self) -> float:
        return max(self.job, default=float("inf"))


class Bystander:
    """Two visitors who have scored a text: one moves a slider, the other has a sentence continued, again and again."""

    def __init__(self, url: str, pid: int):
        self._url, self._process = url, psutil.Process(pid)
        self._at_sliders, self._at_jobs = (Client(url, verbose=False, ssl_verify=False) for _ in range(2))
        for client in (self._at_sliders, self._at_jobs):
            client.predict(text=TEXT, metric="transact", num_samples=4, seq_len=64, api_name="/score")

    def move(self, share: float) -> None:
        self._at_sliders.predict(
            attention_sparsity=0.0, mlp_sparsity=share, allocation="uniform", api_name="/plan"
        )  # fmt: skip

    def ask(self) -> None:
        self._at_jobs.predict(prompt="The fox", api_name="/generate")

    @contextmanager
    def noticing(self) -> Iterator[Noticed]:
        """Notes what happens until the block ends, and what was then still without an answer until it has come."""
        noticed, over = Noticed(), threading.Event()
        shares = (0.1 + 0.001 * move for move in range(10**6))

        def again(times: list[float], act) -> None:
            while not over.wait(_PAUSE):
                began = time.perf_counter()
                try:
                    act()
                    times.append(time.perf_counter() - began)
                except Exception as error:  # whatever it is, an honest visitor should not have met it
                    noticed.errors.append(f"{type(error).__name__}: {error}"[:200])

        def weigh() -> None:
            while not over.wait(_PAUSE):
                noticed.peak_bytes = max(noticed.peak_bytes, self.resident_bytes())

        acts = (
            (noticed.slider, lambda: self.move(next(shares) % 0.9)),
            (noticed.job, self.ask),
            (noticed.health, lambda: urllib.request.urlopen(f"{self._url}healthz", timeout=60).close()),
        )
        threads = [threading.Thread(target=again, args=pair, daemon=True) for pair in acts]
        threads.append(threading.Thread(target=weigh, daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield noticed
        finally:
            over.set()
            for thread in threads:
                thread.join(120)

    def resident_bytes(self) -> int:
        """Of the app and the processes that it started."""
        total = 0
        for process in (self._process, *self._process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total
