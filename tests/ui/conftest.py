"""The app in this process, for the endpoint tests; one page for all of them."""

from functools import partial

import pytest
from gradio_client import Client


@pytest.fixture(scope="session")
def page():
    from ui.application import build

    return build()


@pytest.fixture(scope="session")
def app_url(page):
    from ui.application import launch_options

    _, url, _ = page.launch(
        server_name="127.0.0.1", server_port=None, prevent_thread_lock=True, quiet=True, **launch_options()
    )
    yield url
    page.close()


@pytest.fixture
def untimed(monkeypatch):
    """Nothing is timed where results are measured: that takes seconds and gives no number that is compared."""
    import transact as ta

    monkeypatch.setattr(ta, "evaluate", partial(ta.evaluate, speed=False))


@pytest.fixture
def client(app_url) -> Client:
    """A visitor of its own."""
    return Client(app_url, verbose=False)
