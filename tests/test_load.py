"""Twenty visitors at once on a real server, then two minutes of them: no error, nothing mixed up, no growth."""

import json

import pytest

from benchmarks.load import GROWTH, all_at_once, crowd, remembering, soak
from tests.e2e.server import running_app


@pytest.mark.long
def test_three_visitors_at_once(tmp_path):
    visitors = crowd(3)
    with running_app(tmp_path / "app.log", remembering(visitors)) as url:
        times = all_at_once(url, visitors, moves=5)  # raises at the first number that is not the visitor's own
    assert len(times.seconds["/plan"]) == 3 * 5


@pytest.mark.alone
def test_twenty_visitors_at_once_then_a_soak(tmp_path):
    """The longest test by far: the soak alone takes two minutes, since a shorter one would see no slow growth.

    How quick it all is, `python -m benchmarks.load` says: machines differ, and this must hold on all of them.
    """
    visitors, log = crowd(20), tmp_path / "app.log"
    with running_app(log, remembering(visitors)) as url:
        times = all_at_once(url, visitors, moves=50)  # raises at the first number that is not the visitor's own
        soaked = soak(url, visitors, minutes=2, moves=10)
    assert len(times.seconds["/plan"]) == 20 * 50
    assert soaked.visits > 2 and len(soaked.resident) > 60
    assert soaked.growth < GROWTH
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {event["event"] for event in events} >= {"started", "job started", "job finished"}
    assert not [event for event in events if event["event"] in ("job failed", "job cancelled", "job refused")]
