"""Whose account a push goes to, for every place that the app may run in."""

import gradio as gr
import pytest

from ui.errors import WrongInput
from ui.server import sign_in

SPACE = {"SYSTEM": "spaces", "SPACE_ID": "a/b"}
OAUTH = dict.fromkeys(sign_in._OAUTH, "set")
VISITOR = gr.OAuthToken(token="hf_visitor", scope="contribute-repos", expires_at=0)


@pytest.fixture
def place(monkeypatch):
    for name in (*SPACE, *OAUTH, "GRADIO_SERVER_NAME"):
        monkeypatch.delenv(name, raising=False)

    def put(settings: dict[str, str]) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({}, "machine"),
        ({"GRADIO_SERVER_NAME": "localhost"}, "machine"),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, "none"),
        ({"GRADIO_SERVER_NAME": "192.168.1.7"}, "none"),
        (SPACE | OAUTH, "visitor"),
        (SPACE, "none"),
        ({"SPACE_ID": "a/b"} | OAUTH, "none"),
        ({"SYSTEM": "spaces"} | OAUTH, "none"),
        (OAUTH, "machine"),
        *((SPACE | OAUTH | {name: ""}, "none") for name in OAUTH),
    ],
)
def test_the_machines_token_serves_its_owner_alone(place, settings, way):
    place(settings)
    assert sign_in.way() == way
    if way == "machine":
        assert sign_in.token(None) is sign_in.token(VISITOR) is None
    elif way == "visitor":
        assert sign_in.token(VISITOR) == "hf_visitor"
        with pytest.raises(WrongInput, match="Nobody is signed in"):
            sign_in.token(None)
    else:
        for signed_in in (None, VISITOR):
            with pytest.raises(WrongInput, match="cannot push"):
                sign_in.token(signed_in)


def test_a_space_without_the_extra_still_starts(place, monkeypatch):
    place(SPACE | OAUTH)
    monkeypatch.setattr(sign_in, "find_spec", lambda name: None)
    assert sign_in.way() == "none"
