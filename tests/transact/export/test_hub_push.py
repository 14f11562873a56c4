"""Pushing to a stand-in hub: what it receives, what stays as it is, and one sentence for each way it says no."""

import socket
import threading

import pytest

import transact as ta
from tests.conftest import processes_alone
from tests.writable_hub import MADE_BY_THE_HUB, Repository, WritableHub, serve
from transact.export import hub_push

pytestmark = pytest.mark.long

TOKEN = "hf_myOwnSecret"
OTHERS = {"config.json": b"{}", "old.safetensors": b"1234", "notes/mine.txt": b"mine"}


@pytest.fixture
def hub(monkeypatch):
    stand_in = WritableHub({TOKEN: "me", "hf_another": "another"})
    with serve(stand_in) as address:
        for name, value in (("HF_ENDPOINT", address), ("HF_HUB_OFFLINE", "0"), ("HF_HUB_DISABLE_XET", "1"),
                            ("HF_TOKEN", TOKEN)):  # fmt: skip
            monkeypatch.setenv(name, value)
        yield stand_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as `save` writes it, with what must not travel beside it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "out"
    ta.save(ta.load("bundled"), folder)
    (folder / ".env").write_text("SECRET=1")
    (folder / "runs").mkdir()
    (folder / "runs" / "log.txt").write_text("log")
    return folder


def own_files(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != ".env"}


def test_private_by_default_and_byte_for_byte(hub, folder):
    told = []
    pushed = ta.push(folder, "me/small", progress=lambda *step: told.append(step))
    repository = hub.repositories["me/small"]
    assert repository.private and repository.files == MADE_BY_THE_HUB | own_files(folder)
    assert pushed == ta.Pushed("me/small", f"{hub.address}/me/small", repository.commits[-1], private=True)
    assert len(repository.commits) == 2, "one commit after the hub's own"
    size = sum(map(len, own_files(folder).values()))
    assert told[-1][1:] == (size, "bytes") and {token for _, token in hub.asked} == {TOKEN}


def test_public_where_asked_and_an_owner_that_goes_without_saying(hub, folder):
    assert ta.check_push("small", private=False) == "me/small"
    assert hub.repositories == {}, "to ask changes nothing"
    pushed = ta.push(folder, "small", private=False, token="hf_another")
    assert (pushed.repo_id, pushed.private) == ("another/small", False)
    assert not hub.repositories["another/small"].private


def test_what_is_there_stays_until_it_may_be_replaced(hub, folder):
    hub.repositories["me/small"] = Repository(True, MADE_BY_THE_HUB | OTHERS)
    for attempt in (ta.check_push, lambda name: ta.push(folder, name)):
        with pytest.raises(ta.PushRefused, match="me/small exists and holds 3 files.*--overwrite.*another name"):
            attempt("me/small")
    assert hub.repositories["me/small"].files == MADE_BY_THE_HUB | OTHERS
    pushed = ta.push(folder, "me/small", overwrite=True)
    assert hub.repositories["me/small"].files == MADE_BY_THE_HUB | own_files(folder), "nothing of two models"
    assert pushed.commit == hub.repositories["me/small"].commits[-1] != "0" * 40


def test_an_empty_repository_is_filled(hub, folder):
    hub.repositories["me/small"] = Repository(True, dict(MADE_BY_THE_HUB))
    assert ta.push(folder, "me/small", private=False).private, "what is private stays so"
    assert "model.safetensors" in hub.repositories["me/small"].files


def test_nothing_private_goes_where_all_can_see(hub, folder):
    hub.repositories["me/small"] = Repository(False, dict(MADE_BY_THE_HUB))
    with pytest.raises(ta.PushRefused, match="me/small exists and is public"):
        ta.push(folder, "me/small", overwrite=True)
    assert hub.repositories["me/small"].files == MADE_BY_THE_HUB
    assert not ta.push(folder, "me/small", private=False).private


@pytest.mark.parametrize(
    ("fails", "name", "sentence"),
    [
        ({"whoami": 500}, "me/small", "with status 500 (whoami is out of order)"),
        ({"whoami": None}, "me/small", "stopped answering (ReadTimeout"),
        ({"whoami": 429}, "me/small", "with status 429"),
        ({"create": 403}, "me/small", "This token may not write to me/small (status 403)"),
        ({}, "another/small", "This token may not write to another/small (status 403)"),
        ({}, "another/hidden", "another/hidden exists, but this token may not look into it"),
        ({"commit": 500}, "me/small", "Nothing was replaced; try again later"),
        ({"commit": None}, "me/small", "stopped answering (ReadTimeout"),
        ({"commit": 412}, "me/small", "Somebody has changed me/small meanwhile"),
        ({"preupload": 403}, "me/full", "This token may not write to me/full"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_ways_to_say_no(hub, folder, monkeypatch, fails, name, sentence):
    monkeypatch.setattr(hub_push, "_FIRST_ANSWER_SECONDS", 1)
    monkeypatch.setattr(hub_push, "_ANSWER_SECONDS", 1)
    hub.repositories["another/hidden"] = Repository(True, dict(OTHERS))
    hub.repositories["me/full"] = Repository(True, dict(OTHERS))
    hub.fails.update(fails)
    with pytest.raises(ta.PushRefused) as refused:
        ta.push(folder, name, overwrite=True)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value) and TOKEN not in str(refused.value)
    assert hub.repositories["me/full"].files == hub.repositories["another/hidden"].files == OTHERS
    assert hub.repositories.get("me/small", Repository(True, MADE_BY_THE_HUB)).files == MADE_BY_THE_HUB


def test_a_wrong_token_and_none(hub, folder, monkeypatch, tmp_path):
    with pytest.raises(ta.PushRefused, match="does not accept the token") as refused:
        ta.push(folder, "me/small", token="hf_wrong")
    assert "hf_wrong" not in str(refused.value)
    assert hub.asked == [("whoami", "hf_wrong")], "the machine's own token does not step in"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ta.PushRefused, match="hf auth login"):
        ta.push(folder, "me/small")


@pytest.mark.parametrize("name", ["", "a b", "a/b/c", "-x", "x" * 200, "../x"])
def test_names_that_cannot_be(name, folder):
    with pytest.raises(ta.PushRefused, match="cannot name a repository"):
        ta.push(folder, name, token=TOKEN)


def test_what_is_no_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ta.PushRefused, match="holds no checkpoint"):
        ta.push(tmp_path, "me/small", token=TOKEN)
    with pytest.raises(ta.PushRefused, match="cannot be read"):
        ta.push(tmp_path / "nowhere", "me/small", token=TOKEN)


def test_no_connection_and_offline(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ta.PushRefused, match="Offline mode is on"):
        ta.push(folder, "me/small")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with pytest.raises(ta.PushRefused, match="could not be reached"):
        ta.push(folder, "me/small")


def test_stop_ends_it_at_once_while_the_hub_keeps_silent(hub, folder):
    hub.fails["commit"] = None
    waiting = threading.Event()

    def stop(done, total, unit):
        if ("commit", TOKEN) in hub.asked:
            waiting.set()
            raise ta.Cancelled

    with pytest.raises(ta.Cancelled):
        ta.push(folder, "me/small", progress=stop)
    assert waiting.is_set() and not processes_alone()
    assert hub.repositories["me/small"].files == MADE_BY_THE_HUB
