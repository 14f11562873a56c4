"""A disk that is full when something is written for a visitor: one sentence, nothing half-written, then it works."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder
from gradio_client.exceptions import AppError

import transact as ta
from tests import hub
from tests.faults.kernel import no_file_beyond, small_disk
from ui.text_sources.text_source import pasted
from ui.views.downloads import Exports

ROOM = 1_000_000
"""Bytes; the bundled model's files are five times as large, and the plan a hundredth."""


@pytest.fixture(scope="module")
def bundled():
    return ta.load("bundled")


@pytest.fixture(scope="module")
def plan(bundled):
    target = ta.PruningTarget.from_sparsity(bundled.spec, attention=0.25, mlp=0.25)
    return ta.make_plan(ta.ImportanceScores.random(bundled.spec), bundled.spec, target)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["checkpoint", "gguf"])
def test_the_download_is_refused_and_the_next_click_works(client, kind):
    client.predict(repair="none", api_name="/prune")
    with no_file_beyond(ROOM), pytest.raises(AppError) as told:
        client.predict(kind=kind, api_name="/export")
    assert "has no room for the download" in str(told.value) and "then try again" in str(told.value)
    assert tempfile.gettempdir() not in str(told.value) and get_upload_folder() not in str(told.value)
    with no_file_beyond(ROOM):
        assert Path(client.predict(kind="plan", api_name="/export")).stat().st_size < ROOM
    assert Path(client.predict(kind=kind, api_name="/export")).stat().st_size > ROOM


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A real file system that holds what is served and what is temporary."""
    with small_disk(tmp_path / "disk", ROOM) as folder:
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder / "served"))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def test_every_kind_of_download_on_a_full_disk(disk, bundled, plan):
    exports = Exports()
    text = pasted("A fox and a crow met by the river. " * 200, 64)
    filler = disk / "filler"
    for write in (
        lambda: exports.checkpoint("me", "large", lambda folder: ta.save(bundled, folder), ta.NO_PROGRESS),
        lambda: exports.gguf("me", "large", lambda place: ta.save_gguf(bundled, place, file_type="f16")),
    ):
        with pytest.raises(ta.SaveRefused, match="has no room for the download .*(No space left|only a part)"):
            write()
        assert not [file for file in disk.rglob("*") if file.is_file()]
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    for write in (
        lambda: exports.plan("me", "small", plan),
        lambda: exports.texts("me", text, None),
        lambda: exports.history("me", "number,perplexity\n" * 1000),
    ):
        with pytest.raises(ta.SaveRefused, match="has no room for the download .*No space left"):
            write()
        assert [file for file in disk.rglob("*") if file.is_file()] == [filler]
    filler.unlink()
    assert exports.plan("me", "small", plan).read_text() == plan.to_json()


def test_the_library_on_a_full_disk(disk, bundled):
    for write in (
        lambda: ta.save(bundled, disk / "out"),
        lambda: ta.save_gguf(bundled, disk / "out.gguf"),
    ):
        with pytest.raises(ta.SaveRefused, match="Free some space or choose another place"):
            write()
        assert not [file for file in disk.rglob("*") if file.is_file()]


@pytest.mark.long
def test_a_model_that_the_disk_has_no_room_for_is_not_fetched(tmp_path, bundled):
    """In a process of its own, as the hub client reads its environment when it is imported."""
    ta.save(bundled, tmp_path / "model", dtype="float32")
    look = "import transact as ta\ntry: ta.load('team/large')\nexcept ta.ModelNotFound as error: print(error)"
    with hub.serve({"team/large": tmp_path / "model"}) as address, small_disk(tmp_path / "home", ROOM) as home:
        env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", look], env=env, check=True, capture_output=True, text=True)
        assert re.search(r"its files have .* GB and .* GB are free\)\. Free some space", done.stdout), done.stdout
        assert not [file for file in home.rglob("*safetensors*") if file.is_file()]
