"""Stands before gradio's own routes: what they offer beyond this page's needs is refused.

Gradio fetches any public address for whoever names it (as a "file", as an upload's path, through a proxy), and reads
a request's body whole into memory, however long.
"""

from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui import limits

_FILES, _PROXY = ("/file=", "/file/"), "/proxy="
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class _TooLong(Exception):
    """The body has more bytes than were announced, and than are taken."""


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _asks_elsewhere(scope["path"]):
            await PlainTextResponse("Only this page's own files are served.", 403)(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > limits.MAX_BODY_BYTES:
            await _refused(scope, receive, send)
            return
        began = False

        async def answer(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                present = {name.lower() for name, _ in message.get("headers", ())}
                added = [pair for pair in _HEADERS if pair[0] not in present]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            await self._app(scope, _counted(receive), answer)
        except _TooLong:
            if not began:
                await _refused(scope, receive, send)


def _asks_elsewhere(path: str) -> bool:
    """Whether a path of a file or proxy route is an address of the network rather than a file of this app."""
    for route in _FILES:
        _, found, name = path.partition(route)
        if found and ":/" in unquote(name).replace("\\", "/"):
            return True
    return _PROXY in path


def _counted(receive: Receive) -> Receive:
    """`receive` that raises `_TooLong` where a body without an announced length exceeds the limit."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limits.MAX_BODY_BYTES:
            raise _TooLong
        return message

    return counted


async def _refused(scope: Scope, receive: Receive, send: Send) -> None:
    most = limits.MAX_BODY_BYTES // 1_000_000
    await PlainTextResponse(f"The request is too long; at most {most} MB are taken.", 413)(scope, receive, send)
