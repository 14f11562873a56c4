"""A clock that jumps: nothing that is counted in seconds looks at the time of day."""

import ast
import itertools
import threading
import time
from pathlib import Path

import pytest

import transact as ta
from tests.conftest import ROOT
from transact.runtime import isolated_process
from ui.state import plan_of_choice
from ui.state.session import BUNDLED, Session
from ui.state.session_store import Sessions
from ui.work.jobs import Jobs, Tick

HOURS = (0, 10, -10, 24 * 365, -24 * 365)


@pytest.fixture
def jumping(monkeypatch):
    """Each time anything in this process asks for the time of day, it is hours or years from what it was."""
    true, jumps = time.time, itertools.cycle(HOURS)
    monkeypatch.setattr(time, "time", lambda: true() + 3600 * next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    assert {round((time.time() - true()) / 3600) for _ in HOURS} == set(HOURS)


@pytest.mark.long
def test_the_whole_way_while_the_clock_jumps(jumping, client):
    client.predict(text="A fox met a crow. " * 40, metric="transact", num_samples=4, seq_len=32, api_name="/score")
    summary = client.predict(attention_sparsity=0.5, mlp_sparsity=0.25, allocation="uniform", api_name="/plan")
    assert client.predict(repair="none", api_name="/prune")["after"] == summary["after"]
    assert 0 < client.predict(text="mixed", api_name="/evaluate")["perplexity"] < 1000
    assert Path(client.predict(kind="checkpoint", api_name="/export")).stat().st_size > 1_000_000


def test_nobodys_work_expires_and_a_drag_is_one_step(jumping):
    forgotten = []
    sessions = Sessions(lambda id: Session(id, BUNDLED, None, None), forgotten.append)
    first = sessions.get("me")
    assert all(sessions.get("me") is first for _ in HOURS) and not forgotten
    session = first
    for step in range(1, 20):
        choice = type(session.choice)(mlp=step / 20)
        session = plan_of_choice.chosen(session, choice, control="mlp")
    assert len(session.timeline.past) == 1
    assert plan_of_choice.undone(session).choice == first.choice


def test_time_left_and_patience(jumping, tmp_path):
    def work(watch):
        for done in range(5):
            watch(done, 4, "tokens")
            threading.Event().wait(0.2)

    ticks = [tick for tick in Jobs().run("me", "Working", work) if isinstance(tick, Tick)]
    left = [tick.seconds_left for tick in ticks if tick.seconds_left is not None]
    assert left and all(0 <= seconds < 60 for seconds in left)
    script = tmp_path / "script.py"
    script.write_text('import time\ndef answer(request, tell):\n    time.sleep(1)\n    return {"said": 1}')
    assert isolated_process.run(script, {}, ta.NO_PROGRESS, seconds=30) == {"said": 1}


def test_no_duration_is_read_off_the_time_of_day():
    """`time.time()` and `datetime.now()` appear nowhere, as both follow the clock of the machine."""
    found = [
        f"{path.name}:{node.lineno}"
        for folder in ("transact", "ui")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.time", "datetime.now", "datetime.utcnow")
    ]
    assert not found
