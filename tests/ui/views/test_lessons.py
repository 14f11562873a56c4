"""The lessons' facts are those of the bundled model, and their answers follow from them."""

import copy

import pytest

import transact as ta
from benchmarks import lessons as measured
from ui.format import numbers
from ui.views import lesson_figures, lessons


@pytest.fixture(scope="module")
def ground() -> measured.Ground:
    return measured.Ground.of("mixed")


def test_the_facts_are_of_these_weights():
    assert lessons.facts()["model"]["weights"] == measured.identity(), "python -m benchmarks.lessons measures them anew"


def test_the_facts_are_whole():
    known = lessons.facts()
    assert set(known) == set(measured.PARTS)
    assert [point["removed"] for point in known["channels"]] == list(measured.SHARES)
    assert [row["repair"] for row in known["repairs"]] == ["none", "least_squares", "best", "training"]
    assert known["channels"][0]["perplexity"] == known["model"]["perplexity"]  # nothing removed
    assert lessons.FILE.stat().st_size < 60_000


@pytest.mark.slow
def test_sample_values_are_what_the_library_computes_now(ground):
    known = lessons.facts()
    assert measured.savings(ground, 0) == known["savings"]
    assert measured.written(ground.loaded) == known["model"]["writes"]
    half = known["channels"][5]
    plan = ground.plan(0.0, half["removed"])
    assert plan.spec.num_parameters == half["parameters"]
    assert ground.perplexity(plan) == pytest.approx(half["perplexity"], rel=2e-3)
    addition = next(probe for probe in ta.load_probes() if probe.kind == "addition")
    with ta.masked(ground.loaded, plan):
        found = ta.run_probe(ground.loaded, addition, limit=measured.ITEMS).correct
    assert found == pytest.approx(half["tasks"]["addition"], abs=1)


def test_the_answer_follows_from_the_facts():
    known = copy.deepcopy(lessons.facts())
    known["model"]["parameters"] |= {"attention": 9, "mlp": 1, "all": 11}
    assert lessons._what_can_leave(known).right == 0
    for point in known["channels"]:
        point["tasks"] = dict.fromkeys(point["tasks"], 60)
        point["wrong"] = {"code": {"prompt": "print(1)", "right": "  # 1\n", "given": "  # 7\n"}}
    known["channels"][3]["tasks"]["code"] = 53
    changed = lessons._tasks(known)
    assert changed.options[changed.right] == "Code" and changed.press.mlp == 0.3
    assert "right is “# 1”; the cut model says “# 7”" in changed.reveal
    dense = known["model"]["perplexity"]
    known["channels"][5]["perplexity"] = 3 * dense
    assert lessons._half_the_channels(known).right == 2
    few = known["heads"]["dense"]
    known["heads"]["without"] = [[few] * 8] * 6
    assert lessons._one_head(known).right == 0
    known["heads"]["without"] = [[2 * few] * 8] * 6
    assert lessons._one_head(known).right == 2


def test_what_is_revealed_is_in_the_facts():
    known = lessons.facts()
    dense = known["model"]["perplexity"]
    most = max(max(row) for row in known["heads"]["without"])
    assert numbers.factor(known["heads"]["dense"], most) in lessons.LESSONS[1].reveal
    rows = {row["repair"]: row["perplexity"] for row in known["repairs"]}
    for name in ("none", "best", "training"):
        assert numbers.factor(dense, rows[name]) in lessons.LESSONS[6].reveal


def test_a_figure_names_its_lines_where_they_end_and_never_on_top_of_each_other():
    svg = lesson_figures.curves("A & B", "x", [(0, "0")], [("one", [(0, 1), (1, 10)]), ("two", [(0, 1), (1, 10.1)])])
    assert 'aria-label="A &amp; B"' in svg and svg.count('class="name') == 2
    heights = [float(part.split('"')[0]) for part in svg.split(' y="')[1:]]
    assert all(0 <= height <= 128 for height in heights)
    assert lesson_figures._apart([20.0, 21.0, 90.0])[1] - lesson_figures._apart([20.0, 21.0, 90.0])[0] == 13


def test_a_grid_shades_by_the_share():
    html = lesson_figures.grid("<c>", ["a"], [("r", [("1 < 2", 0.5)])])
    assert '<td style="--share:50%">1 &lt; 2</td>' in html and "&lt;c&gt;" in html
