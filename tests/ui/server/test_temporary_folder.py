"""What visitors make on disk goes with the app, however it ends, and never while another app needs its own."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from tests.e2e.server import app_process
from ui.server import temporary_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
HOLDS = """
import os, signal, sys, tempfile, threading
from pathlib import Path
from ui.server import temporary_folder
temporary_folder.claim()
print(tempfile.gettempdir(), os.environ["GRADIO_TEMP_DIR"], flush=True)
(Path(tempfile.mkdtemp()) / "weights").write_text("a visitor's")
"""


@contextmanager
def app_with_results(folder: Path, name: str):
    """A running app whose temporary folder is `folder`, with a cut, an upload and a download of a visitor in it."""
    with app_process(folder.parent / f"{name}.log", {"TMPDIR": str(folder)}) as (url, app):
        client = Client(url, verbose=False, download_files=False)
        client.predict(attention_sparsity=0.5, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
        client.predict(repair="none", api_name="/prune")
        client.predict(kind="gguf", api_name="/export")
        sent = httpx.post(f"{url}gradio_api/upload", files={"files": ("story.txt", b"A visitor's own story.")})
        assert sent.status_code == 200
        yield app


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.exhaustive
def test_an_app_leaves_nothing_behind_and_clears_up_after_those_that_were_killed(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    with app_with_results(folder, "ended") as app:
        assert {path.suffix for path in files(folder)} >= {".gguf", ".txt"}
        app.send_signal(signal.SIGTERM)
        assert app.wait(60) == -signal.SIGTERM
        assert not list(folder.iterdir())

    with app_with_results(folder, "killed") as app:
        app.kill()
        app.wait(60)
    left = files(folder)
    assert {path.suffix for path in left} >= {".gguf", ".txt"}
    with app_with_results(folder, "living"):
        assert not left & files(folder)
        living = files(folder)
        assert {path.suffix for path in living} >= {".gguf", ".txt"}
        with app_process(tmp_path / "next.log", {"TMPDIR": str(folder)}):
            assert living <= files(folder)
        assert files(folder) == living
    assert not list(folder.iterdir())


def holder(folder: Path, then: str = "", **environment: str) -> subprocess.Popen:
    """A process that holds a folder and does `then`."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDS + then], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(folder)} | environment, preexec_fn=_as_at_a_terminal,
    )  # fmt: skip


def _as_at_a_terminal() -> None:
    """A shell that starts tests in the background has them ignore Ctrl-C, as nohup does a hang-up."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def test_everything_temporary_lies_in_one_folder(tmp_path):
    process = holder(tmp_path, "sys.stdin.read()")
    temporary_folder, served = map(Path, process.stdout.readline().split())
    assert temporary_folder.parent == tmp_path and served == temporary_folder / "gradio"
    assert temporary_folder.stat().st_mode & 0o777 == 0o700
    process.kill()
    process.wait()


def test_where_gradio_has_a_place_of_its_own_that_is_cleared_too(tmp_path):
    for name in ("usual", "served"):
        (tmp_path / name).mkdir()
    (tmp_path / "served" / "of others").touch()
    settings = {"GRADIO_TEMP_DIR": str(tmp_path / "served")}
    killed = holder(tmp_path / "usual", "os.kill(os.getpid(), signal.SIGKILL)", **settings)
    assert killed.wait(60) == -signal.SIGKILL
    assert all(list((tmp_path / name).glob(f"{temporary_folder.PREFIX}*")) for name in ("usual", "served"))
    assert holder(tmp_path / "usual", **settings).wait(60) == 0
    assert not list((tmp_path / "usual").iterdir())
    assert [path.name for path in (tmp_path / "served").iterdir()] == ["of others"]


@pytest.mark.parametrize(
    ("then", "status"),
    [
        ("", 0),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGHUP)", -signal.SIGHUP),
        # one that is in the middle of writing, with a child that would go on
        (
            "import subprocess, time\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "def write():\n"
            "    while True:\n"
            "        place = Path(tempfile.gettempdir()) / 'gradio' / 'deep'\n"
            "        place.mkdir(parents=True, exist_ok=True)\n"
            "        (place / 'file').write_text('more')\n"
            "threading.Thread(target=write, daemon=True).start()\n"
            "time.sleep(0.2)\n"
            "os.kill(os.getpid(), signal.SIGTERM)",
            -signal.SIGTERM,
        ),
        # a copy of the process that ends, by itself or by a signal, takes nothing away from the original
        (
            "for end in (lambda: sys.exit(0), lambda: os.kill(os.getpid(), signal.SIGTERM)):\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        end()\n"
            "    os.waitpid(child, 0)\n"
            "    assert list(Path(tempfile.gettempdir()).rglob('weights'))",
            0,
        ),
    ],
    ids=["normally", "with an error", "ctrl-c", "hang-up", "at work", "copies"],
)
def test_it_goes_however_the_process_ends(tmp_path, then, status):
    process = holder(tmp_path, then)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert output and not list(tmp_path.iterdir())


def test_what_is_not_a_dead_process_of_ones_own_stays(tmp_path):
    name = temporary_folder.PREFIX + "1"
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / name).symlink_to(other)
    (tmp_path / f"{temporary_folder.PREFIX}file").touch()
    (tmp_path / "transact-results-old").mkdir()
    temporary_folder.remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        name, f"{temporary_folder.PREFIX}file", "transact-results-old", "other",
    }  # fmt: skip


def test_the_folder_of_another_user_stays(tmp_path, monkeypatch):
    (tmp_path / f"{temporary_folder.PREFIX}theirs").mkdir()
    monkeypatch.setattr(temporary_folder.os, "geteuid", lambda: os.getuid() + 1)
    temporary_folder.remove_abandoned(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.undo()
    temporary_folder.remove_abandoned(tmp_path)
    assert not list(tmp_path.iterdir())
