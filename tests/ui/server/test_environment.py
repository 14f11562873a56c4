"""What a host sets: folders that visitors may name, for every place that the app may run in, and how many are kept."""

import pytest

import transact as ta
from transact.models import sources
from ui import application
from ui.errors import NotYet, WrongInput
from ui.server import environment
from ui.state.session import BUNDLED, ModelKey
from ui.text_sources import hub_dataset
from ui.text_sources.text_source import DatasetChoice
from ui.work.registry import Registry

MODEL = str(sources.BUNDLED_DIRECTORY)
PUBLIC = ({"SPACE_ID": "a/b"}, {"SYSTEM": "spaces"}, {"GRADIO_SERVER_NAME": "0.0.0.0"})


@pytest.fixture(autouse=True)
def place(monkeypatch):
    for name in ("SPACE_ID", "SYSTEM", "GRADIO_SERVER_NAME", environment.LOCAL_ROOTS, environment.TRAINED_TOKENS):
        monkeypatch.delenv(name, raising=False)

    def put(settings: dict[str, str]) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

    return put


def test_on_ones_own_machine_every_folder_may_be_named():
    assert Registry().preflight(ModelKey(MODEL)).spec == ta.preflight("bundled").spec


@pytest.mark.parametrize("settings", PUBLIC)
@pytest.mark.parametrize("named", [MODEL, "assets/model", "./assets/model", "~", "~root", "/etc", "/no/such"])
def test_where_others_reach_the_page_none_may(place, settings, named):
    place(settings)
    for act in (Registry().preflight, Registry().dense):
        with pytest.raises(WrongInput, match="visitors may not read. Give a hub id instead"):
            act(ModelKey(named))
    with pytest.raises(WrongInput, match="visitors may not read"):
        hub_dataset.streamed(DatasetChoice(named), 1)


@pytest.mark.parametrize("settings", PUBLIC)
def test_the_refusal_does_not_tell_what_is_there(place, settings):
    place(settings)
    said = set()
    for named in ("/etc/passwd", "/etc", "/no/such/thing"):
        with pytest.raises(WrongInput) as caught:
            Registry().preflight(ModelKey(named))
        said.add(str(caught.value).replace(named, ""))
    assert len(said) == 1


@pytest.mark.slow
@pytest.mark.parametrize("settings", PUBLIC)
def test_hub_ids_and_the_bundled_model_may_still_be_named(place, settings):
    place(settings)
    assert Registry().dense(BUNDLED).source == "bundled"
    assert Registry().preflight(ModelKey("bundled", None, "float32")).dtype == "float32"
    for name in ("team/model", "gpt2"):
        assert environment.may_name(name)
        with pytest.raises(ta.ModelNotFound, match="The hub could not be reached"):
            Registry().preflight(ModelKey(name))


def test_roots_open_what_is_below_them_and_nothing_else(place, tmp_path):
    inside, outside = tmp_path / "models" / "a", tmp_path / "models-too"
    inside.mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "models" / "link").symlink_to(outside)
    place({"SPACE_ID": "a/b", environment.LOCAL_ROOTS: f"{tmp_path / 'models'}:{tmp_path / 'none'}"})
    assert environment.may_name(str(inside))
    for refused in (outside, tmp_path, tmp_path / "models" / "link", tmp_path / "models" / ".." / "models-too"):
        assert not environment.may_name(str(refused))


def test_a_link_in_a_folder_must_not_lead_out_either(place, tmp_path):
    """The files of a model are read, so a config.json that is a link would show what it leads to."""
    root, secret = tmp_path / "models", tmp_path / "secret.json"
    secret.write_text('{"secret": 1}')
    place({"SPACE_ID": "a/b", environment.LOCAL_ROOTS: str(root)})
    for name in ("file", "folder", "circle", "deep", "inside"):
        (root / name / "sub").mkdir(parents=True)
    (root / "file" / "config.json").symlink_to(secret)
    (root / "folder" / "data").symlink_to(tmp_path)
    (root / "circle" / "config.json").symlink_to("config.json")
    (root / "deep" / "sub" / "a.jsonl").symlink_to("../../../secret.json")
    (root / "inside" / "config.json").symlink_to(root / "file" / "sub")
    assert environment.may_name(str(root / "inside"))
    for name in ("file", "folder", "circle", "deep"):
        assert not environment.may_name(str(root / name))
        with pytest.raises(WrongInput, match="visitors may not read"):
            Registry().preflight(ModelKey(str(root / name)))
        with pytest.raises(WrongInput, match="visitors may not read"):
            hub_dataset.streamed(DatasetChoice(str(root / name)), 1)
    assert not environment.may_name(str(root / "file" / "config.json"))


def test_roots_hold_on_ones_own_machine_too(place, tmp_path):
    place({environment.LOCAL_ROOTS: ""})
    assert not environment.may_name(MODEL)
    assert not environment.may_name("assets/model")


@pytest.mark.parametrize("said", ["0", "-3", "many", "1.5", "²"])
def test_a_number_of_visitors_is_at_least_one(monkeypatch, said):
    monkeypatch.setenv(environment.SESSIONS, said)
    with pytest.raises(ValueError, match=f"{environment.SESSIONS} is '{said}'; give a number of visitors, at least 1"):
        environment.max_sessions()


@pytest.mark.parametrize("said", ["-3", "many", "1.5", "²", "9" * 6000])
def test_tokens_to_train_on_are_a_number(monkeypatch, said):
    monkeypatch.setenv(environment.TRAINED_TOKENS, "0")
    assert environment.max_trained_tokens() == 0
    monkeypatch.setenv(environment.TRAINED_TOKENS, said)
    with pytest.raises(ValueError, match=f"{environment.TRAINED_TOKENS} is .*; give a number of tokens, at least 0"):
        application.open_context()


@pytest.mark.slow
def test_the_page_keeps_as_many_visitors_as_the_host_says(monkeypatch):
    monkeypatch.setenv(environment.SESSIONS, " 2 ")
    context = application.open_context()
    assert application.launch_options(context)["state_session_capacity"] == 2
    for visitor in "abc":
        context.sessions.get(visitor)
    assert len(context.sessions) == 2
    with pytest.raises(NotYet, match="cleared away"):
        context.sessions.get("a")
