"""Recovery as the app runs it: reproduced by the emitted lines, kept when memory runs short, stopped with the best."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import transact as ta
from tests import shell
from tests.ui.views.test_python_code import ROOT, planned, run
from transact.spec.plan import compose_cuts
from ui.errors import WrongInput
from ui.state.session import BUNDLED, Choice, Session
from ui.text_sources import text_source
from ui.views.python_code import Recipe, code
from ui.views.shell_commands import commands
from ui.work import measuring, pruning, recovery
from ui.work.jobs import Watch
from ui.work.recovery import Form
from ui.work.registry import Registry

pytestmark = pytest.mark.long

FORM = Form(
    shots=2, shot_tokens=1200, recovery_tokens=2000, learning_rate=1e-3, loss="distillation", own_text=True,
    repair="least_squares", search=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry()


@pytest.fixture(scope="module")
def measured_on() -> text_source.TextSource:
    return text_source.TextSource("pasted text", text_source.evaluation_sample("stories").texts[:3], "pasted")


def recovered(
    registry: Registry, session: Session, form: Form, text: text_source.TextSource, watch: Watch | None = None
):
    return recovery.recover(registry, session, recovery.training(session, form), text, watch or Watch("test"))


def session_of(registry: Registry, **choice) -> Session:
    return planned(registry, BUNDLED, text_source.sample("stories"), Choice(attention=0.25, mlp=0.5, **choice))


@pytest.mark.parametrize(
    ("choice", "form"),
    [
        ({"locks": ta.Locks(keep_channels=frozenset({(1, 2)}))}, FORM),
        pytest.param(
            {"metric": "wanda", "allocation": "global"},
            replace(FORM, own_text=False, loss="language_model"),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            {"metric": "flap", "allocation": "flap"},
            replace(FORM, own_text=False, loss="language_model"),
            marks=pytest.mark.exhaustive,
        ),
        pytest.param({}, replace(FORM, shots=1, repair="best"), marks=pytest.mark.exhaustive),
    ],
    ids=["locks and own text", "global", "flap", "search and best"],
)
def test_the_emitted_lines_come_to_the_same_weights(
    registry, untimed, measured_on, tmp_path, monkeypatch, choice, form
):
    session = session_of(registry, **choice)
    result = recovered(registry, session, form, measured_on)
    result = measuring.measure(registry, session.id, result, measured_on, Watch("test"))
    names = run(code(Recipe.of_result(result)), tmp_path, monkeypatch)
    mine = pruning.pruned_model(registry, session.id, result, Watch("test")).model.state_dict()
    theirs = names["pruned"].model.state_dict()
    assert all((theirs[name] - value).abs().max() < 1e-5 for name, value in mine.items())
    assert names["report"].perplexity == pytest.approx(result.report.perplexity, rel=1e-5)
    assert compose_cuts(names["pruned"].cuts).layers == result.plan.layers
    if "locks" in choice:
        assert 2 in result.plan.layers[1].kept_channels


def test_the_shell_line_comes_to_the_same_perplexity(registry, tmp_path, monkeypatch, capsys):
    session = session_of(registry)
    text = text_source.evaluation_sample("stories")
    result = recovered(registry, session, FORM, text)
    lines = commands(Recipe.of_result(result)).rstrip() + " --json --quiet --no-proof"
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    points = json.loads(shell.run(lines, tmp_path, monkeypatch, capsys))["points"]
    expected = [point.perplexity for point in result.recovery.points if point.perplexity is not None]
    found = [point["perplexity"] for point in points if point["perplexity"] is not None]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_trained_model_is_read_again_where_memory_ran_short(registry, measured_on):
    session = replace(session_of(registry), id="short of memory")
    result = recovered(registry, session, replace(FORM, own_text=False), measured_on)
    before = pruning.pruned_model(registry, session.id, result, Watch("test"))
    registry._pruned.drop(lambda key: True)
    again = pruning.pruned_model(registry, session.id, result, Watch("test"))
    assert again is not before
    for name, value in before.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    assert again.cuts == before.cuts
    registry.forget(session.id)
    assert not Path(result.folder).exists()


def test_a_stop_keeps_the_best_so_far(registry, measured_on):
    session = session_of(registry)
    watch = Watch("test")
    found = []
    watch.finds = lambda value: (found.append(value), watch.stop.set() if value.points[-1].step >= 10 else None)
    form = replace(FORM, shots=1, recovery_tokens=2_000_000, repair="none", own_text=False)
    result = recovered(registry, session, form, measured_on, watch)
    assert result.recovery.stopped
    assert result.recovery.points[-1].step < 20
    report = measuring.measure(registry, session.id, result, measured_on, Watch("test")).report
    assert report.perplexity < found[1].points[1].perplexity  # the one after the cut


def test_a_stop_while_it_is_measured_keeps_what_was_trained(registry, measured_on):
    session = session_of(registry)
    watch = Watch("test")
    begin = watch.says

    def says(title: str) -> None:
        if title.startswith("Measuring"):
            watch.stop.set()
        begin(title)

    watch.says = says
    chosen = recovery.training(session, replace(FORM, shots=1, recovery_tokens=2000, repair="none", own_text=False))
    result = recovery.recover_and_measure(registry, session, chosen, measured_on, watch)
    assert result.report is None and not result.recovery.stopped
    assert "recovery: " in pruning.pruned_model(registry, session.id, result, Watch("test")).cuts[-1].trained


def test_a_stop_before_anything_is_cut_keeps_nothing(registry, measured_on):
    session = replace(session_of(registry), id="stopped early")
    watch = Watch("test")
    watch.stop.set()
    watch.says, watch.raise_if_cancelled = watch.shows, lambda *figures: None  # up to the library nothing is asked
    with pytest.raises(ta.Cancelled):
        recovered(registry, session, replace(FORM, own_text=False), measured_on, watch)
    assert not list(registry._folder(session.id).iterdir())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shots": 2.5}, "“Shots” is 2.5; give a whole number from 1 to 8"),
        ({"shots": 10**12}, "“Shots” is 1000000000000; give"),
        ({"recovery_tokens": None}, "“Tokens after the last shot” is nothing"),
        ({"recovery_tokens": 10**400}, "is a number of many digits"),
        ({"shot_tokens": 10**9}, "at most .*TRANSACT_TRAINED_TOKENS.* command line"),
        ({"learning_rate": "fast"}, "learning rate is 'fast'"),
        ({"learning_rate": True}, "learning rate is True"),
        ({"repair": "bias"}, "Bias repair"),
        ({"repair": ["best"]}, "no repair"),
        ({"loss": None}, "no loss named None"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(registry, wrong, said):
    with pytest.raises(ta.TransactError, match=said):
        recovery.training(session_of(registry), replace(FORM, **wrong))


def test_a_host_says_how_much_strangers_may_train(registry, monkeypatch):
    session = session_of(registry)
    most = replace(FORM, shots=1, recovery_tokens=5_000_000)
    assert recovery.training(session, most).settings.recovery_tokens == 5_000_000
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    with pytest.raises(WrongInput, match=r"5,000,000 tokens are to be trained on; here it is 250,000 at most"):
        recovery.training(session, most)
    recovery.training(session, replace(most, recovery_tokens=250_000))
    monkeypatch.setenv("TRANSACT_TRAINED_TOKENS", "1000")
    with pytest.raises(WrongInput, match="1,500 tokens are to be trained on; here it is 1,000 at most"):
        recovery.training(session, replace(FORM, shots=2, shot_tokens=500, recovery_tokens=1000))


def test_the_estimate_counts_what_will_be_trained(registry):
    session = session_of(registry)
    found = recovery.estimate(registry, session, recovery.training(session, FORM))
    assert found.tokens == 3200 and found.seconds > 0
    assert found.bytes > 20 * session.plan.spec.num_parameters
    more = recovery.estimate(registry, session, recovery.training(session, replace(FORM, recovery_tokens=20000)))
    assert more.seconds > 3 * found.seconds
