"""The app in this process, for the endpoints."""

from tests.ui.conftest import app_url  # noqa: F401 (a fixture)
