"""The worker ends mid-job: a process killed from outside, a thread that runs out of memory or is told to exit."""

import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

import transact as ta
from tests import hub as read_only_hub
from tests.conftest import processes_alone
from tests.faults.kernel import killing, no_file_beyond
from tests.transact.export.test_hub_push import TOKEN, hub  # noqa: F401 (a fixture)
from tests.writable_hub import MADE_BY_THE_HUB
from ui.server.error_messages import Interrupted
from ui.work import scoring
from ui.work.jobs import Jobs


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "out"
    ta.save(ta.load("bundled"), folder)
    return folder


@pytest.mark.long
def test_the_proof_is_killed_and_the_next_click_works(client):
    result = client.predict(repair="none", api_name="/prune")["result"]
    with killing("proof_script.py") as killed, pytest.raises(AppError, match="killed by SIGKILL.*Try again"):
        client.predict(kind="checkpoint", api_name="/export")
    assert len(killed) == 1
    assert client.predict(kind="checkpoint", api_name="/export").endswith(f"pruned-{result}.zip")


def test_the_upload_is_killed_and_the_next_one_works(hub, checkpoint):  # noqa: F811
    hub.fails["commit"] = None  # so that it is sure to be on its way when it is killed

    def kill(done, total, unit):
        if ("commit", TOKEN) in hub.asked:
            for child in processes_alone():
                child.kill()

    with pytest.raises(ta.PushRefused, match="killed by SIGKILL.*Try again"):
        ta.push(checkpoint, "me/small", progress=kill)
    assert hub.repositories["me/small"].files == MADE_BY_THE_HUB
    hub.fails.clear()
    assert ta.push(checkpoint, "me/small").repo_id == "me/small"


def test_the_download_is_killed_and_the_next_one_works(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with read_only_hub.serve({"team/small": checkpoint}) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with (
            killing("download_script.py") as killed,
            pytest.raises(ta.ModelNotFound, match="killed by SIGKILL.*Try again"),
        ):
            ta.load("team/small")
        assert len(killed) == 1
        assert ta.load("team/small").revision == read_only_hub.COMMIT


def exit_now(*args, **kwargs):
    raise SystemExit(3)


def take_all_memory(*args, **kwargs):
    torch.empty(1 << 50, dtype=torch.uint8)


def take_all_of_pythons_memory(*args, **kwargs):
    bytearray(1 << 62)


ENDS = {
    exit_now: "“Scoring on pasted text” was ended from outside (SystemExit)",
    take_all_memory: "Memory ran out during “Scoring on pasted text”",
    take_all_of_pythons_memory: "Memory ran out during “Scoring on pasted text”",
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_thread_that_ends_leaves_the_server_the_lock_and_the_session(app_url, client, monkeypatch, end):
    summary = client.predict(attention_sparsity=0.5, mlp_sparsity=0.25, allocation="uniform", api_name="/plan")
    ask = {"text": f"A fox met a crow, and {end.__name__}. " * 40, "metric": "wanda", "num_samples": 4, "seq_len": 32}
    with monkeypatch.context() as broken:
        broken.setattr(scoring.ta, "observe", end)
        with pytest.raises(AppError) as told:
            client.predict(**ask, api_name="/score")
    assert ENDS[end] in str(told.value)
    assert client.predict(repair="none", api_name="/prune")["after"] == summary["after"]
    assert client.predict(**ask, api_name="/score")["metric"] == "wanda"
    other = Client(app_url, verbose=False)
    assert other.predict(**ask, api_name="/score")["metric"] == "wanda"


def test_what_the_page_is_told(tmp_path):
    jobs = Jobs()
    with pytest.raises(Interrupted, match="SystemExit.*Try again"):
        jobs.finish("me", "Scoring", exit_now)
    with pytest.raises(ta.NotEnoughMemory, match="smaller model"):
        jobs.finish("me", "Scoring", take_all_memory)

    def fill(watch):
        with (tmp_path / "large").open("wb", buffering=0) as file:
            for _ in range(2):
                file.write(bytes(1000))

    with no_file_beyond(1000), pytest.raises(ta.SaveRefused, match="disk .* is full .File too large.*Free some space"):
        jobs.finish("me", "Writing", fill)
    assert jobs.finish("me", "Next", lambda watch: 1) == 1
