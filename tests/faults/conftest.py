"""The app in this process and its visitors, as the endpoint tests have them."""

import pytest

from tests.ui.conftest import app_url, client, page

__all__ = ["app_url", "client", "page"]


def pytest_itemcollected(item):
    """Every fault takes its time."""
    item.add_marker(pytest.mark.slow)
