"""Who listens, and where requests come from as far as that tells visitors apart."""

import pytest

from ui.server.audience import Audience, address


def scope(path: str = "/", peer: str = "203.0.114.9", forwarded: tuple[str, ...] = (), **more) -> dict:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return {"type": "http", "method": "GET", "path": path, "client": (peer, 1234), "headers": headers, **more}


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("8.8.8.8", (), "8.8.8.8"),
        ("8.8.8.8", ("1.1.1.1",), "8.8.8.8"),  # who reaches the port itself may write what it likes
        ("127.0.0.1", (), None),
        ("10.0.3.4", (), None),
        ("10.0.3.4", ("8.8.8.8",), "8.8.8.8"),
        ("10.0.3.4", ("1.1.1.1, 8.8.8.8",), "8.8.8.8"),  # what came before the nearest proxy's word is the visitor's
        ("10.0.3.4", ("1.1.1.1", "8.8.8.8, 10.1.1.1"), "8.8.8.8"),
        ("10.0.3.4", ("unknown",), None),
        ("10.0.3.4", ("8.8.8.8, unknown",), None),
        ("2606:4700::1111", (), "2606:4700::/64"),
        ("testclient", (), None),
    ],
)
def test_an_address_is_the_nearest_of_the_internet(peer, forwarded, expected):
    assert address(scope(peer=peer, forwarded=forwarded)) == expected


def test_a_request_without_a_peer_comes_from_nowhere():
    assert address({**scope(), "client": None}) is None


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/gradio_api/queue/data", b"session_hash=abc", "abc"),
        ("/mounted/gradio_api/queue/data", b"x=1&session_hash=a%20b", "a b"),
        ("/gradio_api/heartbeat/abc", b"", "abc"),
        ("/gradio_api/call/score/abc", b"", "abc"),
        ("/gradio_api/call/v2/score/abc", b"", "abc"),
    ],
)
def test_streams_are_listeners_while_they_are_answered(path, query, name):
    audience = Audience()
    with audience.listening(scope(path, query_string=query)):
        with audience.listening(scope(path, query_string=query)):
            assert audience.hears(name)
        assert audience.hears(name) and not audience.hears("another")
    assert not audience.hears(name)


@pytest.mark.parametrize("path", ["/", "/gradio_api/info", "/gradio_api/queue/data", "/gradio_api/queue/status"])
def test_other_requests_are_none(path):
    audience = Audience()
    with audience.listening(scope(path, query_string=b"")):
        assert not audience._listening


def test_a_question_is_no_listener():
    audience = Audience()
    with audience.listening({**scope("/gradio_api/call/score/abc", query_string=b""), "method": "POST"}):
        assert not audience.hears("abc")
