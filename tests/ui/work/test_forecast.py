"""The time that a job will still take: within a factor of 2 from its first quarter on, whatever its steps do."""

import pytest

from ui.views import progress_line
from ui.work.forecast import Forecast, Step
from ui.work.watch import Tick, Watch

RECORDED = {
    "score, expected to take twice as long": (
        [Step("Scoring", 36.0)],
        [("Scoring on mixed", [(second * 840, 15059, "tokens") for second in range(1, 18)], 18.0)],
    ),
    "search, repair and measure, each as long as it came": (
        [Step("Searching what can go", 20.0), Step("Cutting and repairing", 60.0), Step("Measuring", 25.0),
         Step("Timing both", 10.0), Step("The floor", 8.0)],
        [
            ("Searching what can go, 0.3 GB", [(second, 2 * 38, "tokens") for second in range(1, 38)], 38.0),
            ("Cutting and repairing", [(layer, 60, "layers") for layer in range(1, 30)]
             + [(token, 30000, "tokens") for token in range(0, 30000, 580)], 82.0),
            ("Measuring on mixed", [(token, 12000, "tokens") for token in range(0, 12000, 400)], 30.0),
            ("Timing both", [(done, 6, "speed rounds") for done in range(6)], 14.0),
            ("The floor: a random plan", [(token, 12000, "tokens") for token in range(0, 12000, 1000)], 12.0),
        ],
    ),
    "a map, of which nothing is known but its points": (
        [], [("Mapping the redundancy", [(point, 30, "points") for point in range(30)], 600.0)],
    ),
    "training, whose other steps are left out or come unannounced": (
        [Step("Reading", 30.0), Step("The dense model writes", 60.0), Step("Cutting", 200.0), Step("Measuring", 40.0)],
        [
            ("The dense model writes what to train on", [(done, 128, "tokens") for done in range(128)], 45.0),
            ("Cutting and training", [(done, 60, "steps") for done in range(61)], 260.0),
            ("Opening", [], 2.0),
            ("Measuring on mixed", [(token, 12000, "tokens") for token in range(0, 12000, 400)], 50.0),
        ],
    ),
}  # fmt: skip
"""What was expected of a job, and what came: titles, figures at even distances, and seconds."""


def played(steps, course, seen) -> None:
    """Play a recorded job; `seen` is called after every figure with the forecast, seconds gone and left in truth."""
    now = [0.0]
    forecast, total = Forecast(steps, lambda: now[0]), sum(seconds for _, _, seconds in course)
    forecast.start()
    for title, figures, seconds in course:
        forecast.begin(title)
        began = now[0]
        for number, each in enumerate(figures, 1):
            now[0] = began + seconds * number / (len(figures) + 1)
            forecast.note(*each)
            seen(forecast, now[0], total - now[0])
        now[0] = began + seconds


@pytest.mark.parametrize("name", RECORDED)
def test_within_a_factor_of_two_from_the_first_quarter_on(name):
    checked, shares = [], []

    def seen(forecast, gone, left) -> None:
        shares.append(forecast.share() or 0.0)
        if gone > (gone + left) / 4 and left > 5:
            checked.append((gone, left, forecast.seconds_left()))

    played(*RECORDED[name], seen)
    assert len(checked) > 7
    wrong = [(gone, left, told) for gone, left, told in checked if not left / 2 <= told <= left * 2]
    assert wrong == []
    assert shares == sorted(shares) and shares[-1] > 0.9


def test_the_last_figure_of_a_step_is_not_the_end_of_the_job():
    """“0 s left” stood there after 36 of 102 seconds."""
    now = [0.0]
    forecast = Forecast([Step("Reading", 36.0), Step("Cutting", 40.0), Step("Measuring", 26.0)], lambda: now[0])
    forecast.begin("Reading the text")
    now[0] = 36.0
    forecast.note(100, 100, "tokens")
    assert forecast.seconds_left() == pytest.approx(66.0, rel=0.1)
    assert forecast.share() == pytest.approx(36 / 102, rel=0.1)
    assert (forecast.number, forecast.names) == (1, ("Reading", "Cutting", "Measuring"))


def test_a_waiting_job_is_forecast_as_a_whole_and_begins_when_it_starts():
    now = [0.0]
    forecast = Forecast([Step("Reading", 10.0), Step("Cutting", 20.0)], lambda: now[0])
    now[0] = 500.0
    assert forecast.seconds_left() == 30.0
    forecast.start()
    assert forecast.share() == 0.0
    assert Forecast([Step("Reading")], lambda: now[0]).seconds_left() is None


def test_what_was_announced_and_timed_is_learned_from():
    now = [0.0]
    known = Step("Reading", 10.0, work=5e9, kind="reading")
    forecast = Forecast([known, Step("Cutting", 1.0, work=1e9)], lambda: now[0])
    forecast.begin("Reading the text")
    now[0] = 7.0
    forecast.begin("Looking around")
    now[0] = 9.0
    assert forecast.timings == [(known, 7.0)]
    forecast.end()
    assert forecast.timings == [(known, 7.0)]


def test_the_line_shows_one_bar_for_all_and_names_the_steps():
    watch = Watch("Pruning", [Step("Searching", 30.0), Step("Cutting", 30.0)])
    watch.says("Searching what can go, 0.3 GB")
    watch(1, 4, "tokens")
    line = progress_line.progress(watch.latest)
    assert "Searching what can go, 0.3 GB" in line and "1 of 4 tokens" in line and "left" in line
    assert "<li aria-current=step>Searching</li><li>Cutting</li>" in line
    assert watch.latest.share < 0.3 and f'value="{watch.latest.share:.4f}"' in line
    waiting = progress_line.progress(Tick("Scoring", before=2, wait=40.0))
    assert "Scoring: waiting" in waiting and "2 before you, about 40 s" in waiting
