"""The real app in a process of its own and a real browser before it."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def app_url(tmp_path_factory):
    from tests.e2e.server import running_app

    with running_app(tmp_path_factory.mktemp("app") / "app.log") as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    """Chromium under Playwright; where there is none the tests skip, unless REQUIRE_BROWSER says they must run."""
    executable = shutil.which("chromium")
    if executable is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("REQUIRE_BROWSER=1, but there is no chromium on the path")
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    from tests.e2e.server import chromium

    with chromium(executable) as launched:
        yield launched


@pytest.fixture
def explorer(browser, app_url):
    """A visitor with the page open, whose browser must not complain and must ask no other machine for anything."""
    from tests.e2e.explorer import Explorer

    opened = Explorer(browser, app_url)
    yield opened
    assert not opened.errors
    assert not opened.foreign_requests
    opened.close()


def pytest_itemcollected(item):
    """Every test that opens a browser is slow."""
    item.add_marker(pytest.mark.slow)
