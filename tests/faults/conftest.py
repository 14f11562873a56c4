"""The app in this process and its visitors, as the endpoint tests have them."""

from tests.ui.conftest import app_url, client, page

__all__ = ["app_url", "client", "page"]
