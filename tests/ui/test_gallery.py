"""Models of the gallery on the page: open at once, planned without weights, and refused what needs them."""

import inspect
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
from gradio.events import EventData
from gradio.helpers import special_args
from gradio.state_holder import SessionState
from gradio_client.exceptions import AppError

import transact as ta
from tests import own_loop
from tests.fuzz.strategies import one_sentence
from tests.gallery_files import facts
from ui.errors import NotYet, WrongInput
from ui.server import error_messages
from ui.state import plan_of_choice, session_store, settings_link
from ui.state.session import BUNDLED, ModelKey, Session, Settings
from ui.text_sources import text_source
from ui.views.python_code import Recipe, code
from ui.views.verdict import verdict
from ui.work import gallery, scoring
from ui.work.registry import Registry
from ui.work.watch import Watch

SENTENCE = "This needs the weights of Small-4L, and the gallery holds its scores alone."


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A host's own folder with one model in it."""
    facts().save(tmp_path / "Small-4L.safetensors")
    monkeypatch.setenv("TRANSACT_GALLERY", str(tmp_path))
    return tmp_path


@pytest.fixture
def session(folder) -> Session:
    return scoring.opened_from_gallery(Session("one", BUNDLED, None, None), gallery.scored(gallery.key_of("Small-4L")))


def test_the_file_that_comes_with_the_app():
    """SmolLM2-135M-Instruct, with the perplexities that benchmarks/real_model.py measured for the same cells."""
    model = gallery.scored(gallery.key_of("SmolLM2-135M-Instruct")).gallery
    assert model.spec.num_parameters == 134_515_008 and len(model.spec.layers) == 30
    assert "dequantised" in model.origin.weights and model.origin.licence == "Apache-2.0"
    measured = [(round(point.removed, 3), round(point.perplexity, 2)) for point in model.sweep.points if point.measured]
    assert measured == [(0.0, 28.14), (0.15, 40.21), (0.25, 52.21), (0.375, 82.92), (0.5, 154.99)]
    assert set(model.scores) == set(ta.METRICS) - {"taylor"}
    assert gallery.is_bundled("SmolLM2-135M-Instruct")


def test_a_hosts_folder_is_offered_and_nothing_else(folder):
    pickle.dump({}, (folder / "evil.pkl").open("wb"))
    (folder / "below").mkdir()
    assert list(gallery.names()) == ["SmolLM2-135M-Instruct", "Small-4L"]
    assert not gallery.is_bundled("Small-4L")
    for name in ("../Small-4L", "evil", "/etc/passwd", ""):
        with pytest.raises(WrongInput, match="The gallery has no model"):
            gallery.scored(ModelKey(f"gallery:{name}/x"))


def test_a_file_that_is_replaced_is_read_again(folder):
    first = gallery.scored(gallery.key_of("Small-4L"))
    assert gallery.scored(gallery.key_of("Small-4L")) is first
    (folder / "Small-4L.safetensors").write_bytes(b"nothing")
    with pytest.raises(ta.CheckpointBroken, match="“Small-4L.safetensors” is no gallery file"):
        gallery.scored(gallery.key_of("Small-4L"))
    (folder / "Small-4L.safetensors").unlink()
    (folder / "Small-4L.safetensors").symlink_to(folder / "nowhere")
    with pytest.raises(ta.CheckpointBroken, match="“Small-4L.safetensors” is no gallery file"):
        gallery.scored(gallery.key_of("Small-4L"))


def test_a_plan_follows_the_controls_and_the_code_comes_to_the_same(session, folder, monkeypatch):
    assert session.plan is not None and session.plan.spec != session.spec
    monkeypatch.chdir(folder)
    made: dict = {}
    recipe = Recipe.of_plan(session.scored, session.choice, session.plan)
    exec(code(replace(recipe, search=True)), made)  # as the page has it: what the search would find needs weights
    assert made["plan"] == session.plan
    assert "At this size to be expected: perplexity ×" in verdict(session)


def test_the_registry_has_no_weights_of_it(session):
    registry = Registry()
    for ask in (registry.dense, registry.preflight):
        with pytest.raises(NotYet, match=SENTENCE):
            ask(session.key)
    with pytest.raises(NotYet, match=SENTENCE):
        registry.fetch(session.key, Watch("Fetching"))


def test_a_link_brings_it_back_as_it_was(session):
    choice = replace(session.choice, mlp=0.37, metric="magnitude")
    changed = plan_of_choice.chosen(session, choice)
    settings = settings_link.settings(dict(pair.split("=") for pair in settings_link.query(changed)[1:].split("&")))
    assert isinstance(settings, Settings)
    change = scoring.restored(Registry(), session, settings, text_source.sample("mixed"), Watch("Restoring"))
    again = change(Session("two", BUNDLED, None, None))
    assert (again.key, again.plan, again.scored) == (changed.key, changed.plan, changed.scored)


def test_the_controls_stay_when_the_weights_come(session):
    loaded = SimpleNamespace(spec=session.spec, is_streamed=False)
    changed = plan_of_choice.chosen(session, replace(session.choice, mlp=0.37))
    opened = scoring.opened(changed, ModelKey("some/model"), loaded, None)
    assert opened.choice == changed.choice and opened.scored is None and opened.plan is None


STEPS = {
    "load_and_score.on_score", "look.on_second", "look.on_check", "measure.on_try", "measure.on_prune",
    "measure.on_measure", "measure.on_generate", "goal.on_go", "goal.on_probe", "compare.on_map", "recover.on_start",
    "downloads.on_checkpoint", "downloads.on_gguf", "share.on_push", "live.on_change", "queue.on_add",
}  # fmt: skip
"""The handlers of what needs weights."""


@pytest.mark.slow
def test_every_step_that_needs_weights_says_so_and_nothing_else_fails(page, folder, monkeypatch):
    """Every event of the page in turn, with what its controls hold at first, by a visitor at a gallery model."""
    monkeypatch.setattr(session_store, "ARRIVAL_SECONDS", 0.0)  # no tab tells its name
    monkeypatch.setattr(error_messages.logger, "error", lambda *told, **named: pytest.fail(f"{told} {named}"))
    visitor = SimpleNamespace(session_hash="gallery", query_params={}, username=None, session={}, headers={})

    async def said(event, values) -> str:
        inputs = await page.preprocess_data(event, list(values), SessionState(page), False)
        inputs, *_ = special_args(
            event.fn, list(inputs), visitor, EventData(None, {"plot": "heads-plot", "row": 0, "column": 0, "x": 0})
        )
        answer = event.fn(*inputs)
        updates = list(answer) if inspect.isgenerator(answer) else [answer]
        return " ".join(str(value) for update in updates if isinstance(update, dict) for value in update.values())

    own = [each for each in page.fns.values() if each.fn is not None and each.api_visibility != "public"]
    named = {f"{each.fn.__module__.rpartition('.')[2]}.{each.fn.__qualname__}": each for each in own}
    kept = named["runner.paint"]
    own_loop.run(said(named["load_and_score.on_load"], ["gallery:Small-4L", "", "auto"]))
    assert "is open without its weights" in own_loop.run(said(kept, []))
    refused, score = set(), named["load_and_score.on_score"]
    for name, event in named.items():
        if name.endswith(("on_load", "on_weights", "on_leave", "on_model_named")):
            continue
        words = own_loop.run(said(event, [component.value for component in event.inputs]))
        words += own_loop.run(said(kept, []))
        if SENTENCE in words:
            refused.add(name)
    assert refused >= STEPS, STEPS - refused
    own_loop.run(said(named["selection.on_pointed"], []))
    assert SENTENCE in own_loop.run(said(named["attention.on_sentence"], ["A fox."]))
    assert SENTENCE in own_loop.run(said(named["load_and_score.on_score"], [each.value for each in score.inputs]))


@pytest.mark.slow
def test_scripts_plan_with_it_and_cut_nothing(client, folder):
    known = client.predict(source="gallery:Small-4L", api_name="/load_model")
    assert known["num_hidden_layers"] == 4 and known["fingerprint"].endswith("/weights")
    summary = client.predict(attention_sparsity=0.5, mlp_sparsity=0.5, api_name="/plan")
    assert summary["after"]["parameters"] < summary["before"]["parameters"]
    for call in (
        {"text": "mixed", "api_name": "/score"}, {"repair": "none", "api_name": "/prune"},
        {"text": "mixed", "api_name": "/evaluate"}, {"prompt": "Once", "api_name": "/generate"},
        {"kind": "gguf", "api_name": "/export"},
    ):  # fmt: skip
        with pytest.raises(AppError, match="This needs the weights of Small-4L"):
            client.predict(**call)
    assert client.predict(kind="plan", api_name="/export").endswith(".json")
    with pytest.raises(AppError, match="The gallery has no model “nothing”") as refusal:
        client.predict(source="gallery:nothing", api_name="/load_model")
    one_sentence(Exception(refusal.value.args[0] if refusal.value.args else str(refusal.value)))
