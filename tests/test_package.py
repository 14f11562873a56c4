"""The package: what pyproject.toml promises, and a wheel that works outside the checkout."""

import tomllib
from pathlib import Path

import pytest

import transact as ta
from tests import wheel
from tests.conftest import ROOT
from transact.cli import main
from transact.cli.files import read_text

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def _required(name: str) -> set[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r "))}


def test_what_a_space_installs_is_the_package_with_its_app():
    assert _required("requirements.txt") == {*PROJECT["dependencies"], *EXTRAS["app"]}


def test_what_the_tests_install_is_every_extra():
    own, *others = EXTRAS["dev"]
    assert own == f"{PROJECT['name']}[app,gguf,lora,tasks]" and set(EXTRAS) == {"app", "gguf", "lora", "tasks", "dev"}
    assert _required("requirements-dev.txt") == {*others, *EXTRAS["gguf"], *EXTRAS["lora"], *EXTRAS["tasks"]}
    assert (ROOT / "requirements-dev.txt").read_text().startswith("-r requirements.txt\n")


def test_the_samples_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = Path("assets/samples/stories.jsonl")
    assert read_text(named).texts == read_text(ta.SAMPLES / "stories.jsonl").texts
    with pytest.raises(ta.InvalidText, match="There is no file assets/samples/none.jsonl"):
        read_text(Path("assets/samples/none.jsonl"))
    with pytest.raises(ta.InvalidText, match="There is no file elsewhere/stories.jsonl"):
        read_text(Path("elsewhere/stories.jsonl"))
    named.parent.mkdir(parents=True)
    named.write_text('{"text": "One\'s own."}')
    assert read_text(named).texts == ("One's own.",)


def test_without_the_extra_the_app_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("transact.cli.app.find_spec", lambda name: None)
    monkeypatch.setattr("transact.cli.app.os.execve", None)
    assert main(["app"]) == 1
    said = capsys.readouterr().err
    assert "needs gradio and plotly" in said and "pip install 'transact-explorer[app]'" in said
    assert said.count("\n") == 1


def test_the_app_takes_the_place_of_the_process(monkeypatch):
    started = []

    def execve(program, words, environment):
        started.append((program, words, environment))
        raise SystemExit(0)

    monkeypatch.setattr("transact.cli.app.os.execve", execve)
    monkeypatch.setenv("GRADIO_SERVER_NAME", "127.0.0.1")
    monkeypatch.setenv("GRADIO_SERVER_PORT", "7860")
    for line, name, port in (([], "127.0.0.1", "7860"), (["--host", "::1", "--port", "9"], "::1", "9")):
        with pytest.raises(SystemExit):
            main(["app", *line])
        program, words, environment = started.pop()
        assert program == words[0] and words[-1] == str(ROOT)
        assert (environment["GRADIO_SERVER_NAME"], environment["GRADIO_SERVER_PORT"]) == (name, port)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return wheel.build(tmp_path_factory.mktemp("wheel") / "build")


@pytest.mark.long
def test_nothing_is_missing_and_nothing_else_is_in_it(built):
    held = wheel.contents(built)
    described = {name for name in held if name.startswith(f"transact_explorer-{ta.__version__}.dist-info/")}
    assert held - described == wheel.expected()
    assert {"transact/py.typed", "transact/_assets/model/model.safetensors", "ui/__main__.py"} <= held


@pytest.mark.long
def test_it_works_in_an_environment_and_a_folder_of_its_own(built, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    programs = wheel.install(built, tmp_path / "environment")
    found = wheel.imported(programs, folder)
    assert found.pop("version") == ta.__version__
    assert all(Path(place).is_relative_to(tmp_path / "environment") for place in found.values())
    plan = wheel.pruned(programs, folder)["plan"]
    assert plan["after"]["parameters"] < plan["before"]["parameters"]
    assert (folder / "pruned" / "model.safetensors").stat().st_size > 1_000_000
    cut = wheel.answered(programs, folder)
    assert cut["after"]["parameters"] < cut["before"]["parameters"]
