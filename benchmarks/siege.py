"""One kind of hostile visitor after the other against an app set up as a public host, and a table of what is noticed.

Part of `python -m benchmarks.load --attack MINUTES`, which says what is held against what.
"""

import multiprocessing
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import attacks
from benchmarks.attacks import ATTACKS, SECRET, Attack
from benchmarks.bystander import Bystander, Noticed
from benchmarks.harness import table
from tests import hub
from tests.e2e.server import app_process

BUDGET, BESIDE = 2_000_000_000, 500_000_000
"""The app's memory budget, and what it may take beside it: Python, torch, the page, and processes of its own."""
SLIDER_SECONDS, JOB_SECONDS = 0.5, 15.0
_DISK_BUDGET = 1_000_000_000


@dataclass(frozen=True)
class Outcome:
    """Of one attack; `crashed` where the app no longer answers, `quoted` where its log holds what was sent."""

    attack: str
    rounds: int
    peak_bytes: int
    slider_95th_seconds: float
    longest_job_seconds: float
    longest_health_seconds: float
    errors: tuple[str, ...]
    crashed: bool
    quoted: bool
    disk_bytes: int

    @property
    def held(self) -> bool:
        return not (self.crashed or self.quoted or self.errors) and (
            self.peak_bytes <= BUDGET + BESIDE
            and self.slider_95th_seconds < SLIDER_SECONDS
            and self.longest_job_seconds < JOB_SECONDS
            and self.disk_bytes <= _DISK_BUDGET
        )


def besiege(seconds: float, chosen: Iterable[Attack] = ATTACKS) -> list[Outcome]:
    """Each attack for so long, all against one app, which is started for it and ended afterwards."""
    outcomes = []
    # in a process of its own, or the honest visitor would wait for the attacker's interpreter
    attackers = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with tempfile.TemporaryDirectory() as name, attackers:
        attackers.submit(len, ATTACKS).result()  # it has started, and knows them
        place = Path(name)
        (temporary := place / "tmp").mkdir()
        with hub.serve(attacks.hostile_models(place / "models")) as address:
            settings = {
                "GRADIO_SERVER_NAME": "0.0.0.0", "TRANSACT_MEMORY_BUDGET": str(BUDGET), "TMPDIR": str(temporary),
                "TRANSACT_DISK_BUDGET": str(_DISK_BUDGET), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(place / "hub"),
            }  # fmt: skip
            with app_process(log := place / "app.log", settings) as (url, app):
                bystander = Bystander(url, app.pid)
                for attack in chosen:
                    with bystander.noticing() as noticed:
                        rounds = attackers.submit(attacks.attack, url, attack.name, seconds).result()
                    crashed = app.poll() is not None
                    quoted = SECRET in log.read_text(errors="replace")
                    outcomes.append(_outcome(attack, rounds, noticed, crashed, quoted, _bytes_below(temporary)))
                    if crashed:
                        break
    return outcomes


def report(outcomes: list[Outcome]) -> str:
    rows = [
        [
            one.attack,
            f"{one.rounds:,}",
            f"{one.peak_bytes / 1e6:,.0f} MB",
            f"{1000 * one.slider_95th_seconds:,.0f} ms",
            f"{one.longest_job_seconds:.1f} s",
            f"{one.longest_health_seconds:.2f} s",
            f"{one.disk_bytes / 1e6:,.0f} MB",
            "crashed" if one.crashed else "quoted in the log" if one.quoted else f"{len(one.errors)} errors",
            "yes" if one.held else "no",
        ]
        for one in outcomes
    ]
    heads = ["attack", "rounds", "peak", "slider, 95 %", "longest job", "longest /healthz", "disk", "leaks", "held"]
    return table(heads, rows)


def figures(outcomes: list[Outcome]) -> dict:
    return {"budget_bytes": BUDGET, "attacks": [asdict(one) for one in outcomes]}


def _outcome(attack: Attack, rounds: int, noticed: Noticed, crashed: bool, quoted: bool, disk: int) -> Outcome:
    return Outcome(
        attack.name, rounds, noticed.peak_bytes, noticed.slider_95th(), noticed.longest_job(),
        max(noticed.health, default=float("inf")), tuple(noticed.errors), crashed, quoted, disk,
    )  # fmt: skip


def _bytes_below(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
