"""`python app.py` in a process of its own, as a user starts it, and a browser to open it with."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 300
_SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


@contextmanager
def running_app(log: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of the app on a free port; as `app_process`."""
    with app_process(log, settings) as (url, _):
        yield url


@contextmanager
def app_process(log: Path, settings: Mapping[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of the app on a free port, and its process; ended afterwards where it has not ended by itself.

    `settings` are added to its environment. Raises `RuntimeError` with its log if it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_OFFLINE": "1",
        **(settings or {}),
    }
    url = f"http://127.0.0.1:{port}/"
    with log.open("w") as output:
        app = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait_until_it_answers(url, app, log)
            yield url, app
        finally:
            app.terminate()
            app.wait(60)


@contextmanager
def chromium(executable: str | None = None) -> Iterator["Browser"]:
    """Debian's chromium under Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable or shutil.which("chromium"), args=_SWITCHES)
        yield launched
        launched.close()


def _wait_until_it_answers(url: str, app: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if app.poll() is not None:
            raise RuntimeError(f"the app ended with status {app.returncode}:\n{log.read_text()}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the app did not answer within {_START_SECONDS} s:\n{log.read_text()}")
