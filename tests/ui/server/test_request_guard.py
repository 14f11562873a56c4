"""What a running app serves over HTTP: its own page and downloads, and nothing else of the machine or the network."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from gradio.utils import get_upload_folder
from gradio_client import Client

from ui.server import limits, request_guard
from ui.server.folders import folder_name
from ui.server.request_guard import Pace

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"


@pytest.fixture
def web(app_url):
    with httpx.Client(base_url=app_url, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "app.py", "ui/application.py", "README.md", "assets/model/model.safetensors", ".gitignore", ".git/config",
        ".venv/pyvenv.cfg", "/etc/passwd", "/proc/self/environ", "../../../../etc/passwd", "assets/../app.py",
        "/root/.cache", "file:///etc/passwd",
        str(ROOT / "app.py"), str(ROOT / "assets" / "model" / "config.json"), "//etc/passwd", "/tmp", "%2Fetc%2Fpasswd",
    ],
)  # fmt: skip
def test_no_source_no_weights_no_file_of_the_machine(web, path):
    for route in ("gradio_api/file=", "gradio_api/file/", "file="):
        answer = web.get(route + path)
        assert answer.status_code in (403, 404), (route, answer.status_code)
        assert b"root:" not in answer.content and b"import" not in answer.content


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=http://127.0.0.1:1/x", "gradio_api/file=https://example.com/", "gradio_api/file=https:/x.y",
        "gradio_api/file=http%3A%2F%2Fexample.com", "gradio_api/file/http://169.254.169.254/",
        "gradio_api/proxy=https://a.hf.space/",
        "gradio_api/file=hTTp://example.com", "gradio_api/file=http:\\\\example.com",
    ],
)  # fmt: skip
def test_no_address_of_the_network_is_fetched(web, path):
    answer = web.get(path)
    assert (answer.status_code, answer.text) == (403, "Only this page's own files are served.")


@pytest.mark.parametrize("path", ["monitoring", "monitoring/summary", "gradio_api/runs", "gradio_api/vibe-code"])
def test_what_gradio_offers_to_developers_is_off(web, path):
    assert web.get(path).status_code in (403, 404)


def test_a_path_out_of_the_static_folders(web):
    for path in ("static/%2e%2e/%2e%2e/app.py", "assets/..%2f..%2f..%2fetc/passwd", "svelte/..%2f..%2fetc/passwd"):
        assert web.get(path).status_code in (403, 404)


def test_uploads_come_back_as_downloads_and_never_as_pages(web):
    for name, content in (("x.html", b"<script>alert(1)</script>"), ("x.svg", SVG), ("../../../evil.py", b"x")):
        (path,) = web.post("gradio_api/upload", files={"files": (name, content)}).json()
        assert ".." not in path and Path(path).name == Path(name).name
        answer = web.get(f"gradio_api/file={path}")
        assert answer.headers["content-disposition"].startswith("attachment")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "application/octet-stream"


def test_a_request_has_an_end(web):
    answer = web.post("gradio_api/upload", files={"files": ("a.txt", b"x" * 23_000_000)})
    assert answer.status_code == 413
    answer = web.post("gradio_api/upload", content=b"x" * 33_000_000)
    assert (answer.status_code, answer.text) == (413, "The request is too long; at most 32 MB are taken.")
    for route in ("queue/join", "run/plan", "call/plan", "call/v2/plan", "component_server", "cancel", "upload/x"):
        answer = web.post(f"gradio_api/{route}", content=b"x" * 10_000_000)
        assert (answer.status_code, answer.text) == (413, "The request is too long; at most 9 MB are taken."), route
    in_pieces = web.post("gradio_api/queue/join", content=(b"x" * 1_000_000 for _ in range(34)))
    assert in_pieces.status_code in (400, 413)
    assert web.get("gradio_api/info").status_code == 200


@pytest.mark.parametrize("letter", ["a", "\n", "é", "狐", "🦊"])
def test_the_longest_text_that_may_be_pasted_fits_into_a_request(web, letter):
    """As a browser writes it, which has four bytes for a fox and two for a line's end."""
    told = {"data": [letter * limits.MAX_PASTE_CHARACTERS], "session_hash": f"long {ord(letter)}"}
    headers = {"content-type": "application/json"}
    answer = web.post("gradio_api/run/evaluate", content=json.dumps(told, ensure_ascii=False).encode(), headers=headers)
    assert answer.status_code == 500 and "Nothing has been cut yet" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        {"data": ["stories", "x" * 5_000_000], "session_hash": "quoted"},
        {"data": "x" * 5_000_000},
        {"data": [], "fn_index": ["x" * 5_000_000]},
        {"data": [], "fn_index": 1, "event_data": "x" * 5_000_000, "session_hash": ["x" * 100_000]},
    ],
)
def test_what_was_wrong_is_not_repeated_at_length(web, body):
    for route in ("run/score", "queue/join", "call/score"):
        answer = web.post(f"gradio_api/{route}", json=body)
        assert len(answer.content) <= request_guard.MAX_ERROR_BYTES
        assert answer.status_code < 400 or answer.headers["x-content-type-options"] == "nosniff"


def test_a_short_refusal_is_given_as_it_is(web):
    told = web.post("gradio_api/run/score", json={"data": ["stories", "no such metric"], "session_hash": "short"})
    assert "no such metric" in told.json()["error"]
    assert web.post("gradio_api/queue/join", json={"data": 3}).json()["detail"][0]["input"] == 3


def test_no_page_is_written_to_the_disk_for_a_link(web):
    assert web.get("gradio_api/deep_link?session_hash=short").status_code == 403


def test_a_file_field_takes_what_was_uploaded_and_nothing_else(web):
    config = web.get("config").json()
    (field,) = [part["id"] for part in config["components"] if part["props"].get("elem_id") == "calibration-file"]
    (upload,) = [event["id"] for event in config["dependencies"] if event["inputs"] == [field]]

    def give(path: str) -> str:
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
        answer = web.post("gradio_api/run/predict", json={"data": data, "fn_index": upload, "session_hash": "files"})
        return answer.text

    assert "Only a file can be uploaded here, not an address." in give("https://example.com/a.csv")
    for path in ("/etc/passwd", str(ROOT / "README.md")):
        said = give(path)
        assert "was not uploaded by a user" in said and "Traceback" not in said
    (own,) = web.post("gradio_api/upload", files={"files": ("a.csv", b"text\nhello\n")}).json()
    assert "error" not in json.loads(give(own))


def exported(app_url, session: str) -> Path:
    """Where the server says that the plan of the visitor who calls itself `session` lies."""
    client = Client(app_url, verbose=False, download_files=False)
    client.session_hash = session
    client.predict(attention_sparsity=0.5, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
    return Path(client.predict(kind="plan", api_name="/export")["path"])


def test_one_visitors_download_is_not_to_be_guessed(app_url, web):
    """Whoever has a file's path has the file. So another visitor, who learns where all of them lie, must not get it:

    not by asking for a folder, and not from one's own path, the other's name for itself and what has been before.
    """
    mine, theirs = exported(app_url, "mine"), exported(app_url, "theirs")
    served = Path(get_upload_folder()).resolve()
    for path in (mine, theirs):
        assert path.resolve().is_relative_to(served)  # where gradio serves from, so that no copy lies elsewhere
        assert json.loads(web.get(f"gradio_api/file={path}").content)["format"] == "transact-plan"
        folder = path.parent
        while folder.is_relative_to(served):
            for asked in (folder, f"{folder}/", f"{folder}/.", f"{folder}/*", f"{folder}/../{folder.name}"):
                assert web.get(f"gradio_api/file={asked}").status_code == 403
            folder = folder.parent

    root = Path(os.path.commonpath([mine, theirs]))
    own, drawn, name = theirs.relative_to(root).parts
    assert own == folder_name("theirs") and name == mine.name
    assert len(drawn) == 32 and drawn not in str(mine)
    for guess in (Path(own, name), Path(own, mine.parent.name, name), Path(mine.parent.parent.name, drawn, name)):
        assert web.get(f"gradio_api/file={root / guess}").status_code == 403

    again = exported(app_url, "theirs")
    assert again.parent.parent == theirs.parent.parent and again.parent != theirs.parent
    assert web.get(f"gradio_api/file={theirs}").status_code == 403  # one set at a time
    assert web.get(f"gradio_api/file={again}").status_code == 200


def test_nobody_reads_the_folder_of_downloads_on_the_machine_itself(app_url):
    """Other users of the machine neither: a temporary folder may be everyone's."""
    path = exported(app_url, "mine")
    assert stat.S_IMODE(path.parents[2].stat().st_mode) == 0o700


def test_a_pace_lets_through_so_many_and_no_more():
    """Each page that opens and closes takes gradio 3 ms of the event loop, which all others share."""
    clock = [0.0]
    pace = Pace(10, 3, now=lambda: clock[0])
    assert [pace.lets_through() for _ in range(5)] == [True, True, True, False, False]
    clock[0] = 0.25
    assert [pace.lets_through() for _ in range(3)] == [True, True, False]
    clock[0] = 100.0
    assert [pace.lets_through() for _ in range(4)] == [True, True, True, False]


def test_pages_that_open_by_the_hundred_are_told_to_wait(web):
    """The browser asks again by itself; whoever only works is not held up."""

    def opened(number: int) -> int:
        with web.stream("GET", f"gradio_api/heartbeat/many-{number}") as beats:
            return beats.status_code

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(opened, range(300)))
    assert answers[0] == 200 and 503 in answers
    assert web.get("gradio_api/info").status_code == 200
