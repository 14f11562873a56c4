"""The app in this process, for the endpoint tests; one page for all of them."""

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
def client(app_url) -> Client:
    """A visitor of its own."""
    return Client(app_url, verbose=False)
