"""Stands before gradio's own routes: what they offer beyond this page's needs is refused.

Gradio fetches any public address for whoever names it (as a "file", as an upload's path, through a proxy), reads a
request's body whole into memory, however long, and answers a wrong one with all that was sent.
"""

import json
import time
from collections.abc import Callable
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.server import limits
from ui.server.audience import Audience

BODY_BYTES = "transact.body_bytes"
"""The key of a request's scope under which stands how long its body was so far."""
MAX_ERROR_BYTES = 4_000
"""Of a refusal; a longer one repeats what was sent."""
_FILES, _PROXY = ("/file=", "/file/"), "/proxy="
_DEEP_LINK = "/deep_link"
"""Writes the whole page to the disk for whoever asks; the links of this page hold their settings themselves."""
_UPLOAD = "/gradio_api/upload"
_HEARTBEAT = "/heartbeat/"
HEARTBEATS_A_SECOND, HEARTBEATS_AT_ONCE = 10.0, 100
"""New ones that are let through, one a page that opens. A browser that is refused asks again by itself after seconds;
gradio takes 3 ms of the event loop for each that comes and goes."""
UPLOADS_A_SECOND, UPLOADS_AT_ONCE = 2.0, 40
"""New ones that are let through: a class may begin together. To take a file out of its request holds up others."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class _TooLong(Exception):
    """The body has more bytes than were announced, and than are taken."""


class Pace:
    """Lets through so many a second, and after a pause so many at once."""

    def __init__(self, a_second: float, at_once: int, now: Callable[[], float] = time.monotonic):
        self._a_second, self._at_once, self._now = a_second, at_once, now
        self._left, self._since = float(at_once), now()

    def lets_through(self) -> bool:
        """Whether one more may pass now, which then counts."""
        now = self._now()
        self._left = min(self._at_once, self._left + (now - self._since) * self._a_second)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Guard:
    """ASGI middleware around the whole app.

    `audience` counts who listens; `upload_refused` says why no upload of so many bytes is taken now, None where it is.
    """

    def __init__(
        self,
        app: ASGIApp,
        audience: Audience | None = None,
        upload_refused: Callable[[Scope, int], str | None] = lambda scope, size: None,
    ):
        self._app = app
        self._audience = audience or Audience()
        self._upload_refused = upload_refused
        self._heartbeats = Pace(HEARTBEATS_A_SECOND, HEARTBEATS_AT_ONCE)
        self._uploads = Pace(UPLOADS_A_SECOND, UPLOADS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _asks_elsewhere(scope["path"]):
            await PlainTextResponse("Only this page's own files are served.", 403)(scope, receive, send)
            return
        if _HEARTBEAT in scope["path"] and not self._heartbeats.lets_through():
            await PlainTextResponse("So many pages open at once; this one is heard in a moment.", 503)(
                scope, receive, send
            )
            return
        announced, most = Headers(scope=scope).get("content-length", "0"), _most(scope)
        if not announced.isdigit() or int(announced) > most:
            await _refused(most, scope, receive, send)
            return
        # one that does not say how long it is may be as long as any
        size = int(announced) if "content-length" in Headers(scope=scope) else most
        if _is_upload(scope) and (why := self._upload_refused(scope, size)):
            await PlainTextResponse(why, 413)(scope, receive, send)
            return
        if _is_upload(scope) and not self._uploads.lets_through():
            await PlainTextResponse("So many files are uploaded at once. Try again in some seconds.", 503)(
                scope, receive, send
            )
            return
        answer = _Answer(send)
        try:
            with self._audience.listening(scope):
                await self._app(scope, _counted(scope, receive, most), answer)
        except _TooLong:
            if not answer.began:
                await _refused(most, scope, receive, send)


class _Answer:
    """`send` with our headers, and one sentence in place of a long refusal."""

    def __init__(self, send: Send):
        self._send = send
        self._held: Message | None = None
        self._body = b""
        self.began = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began = True
            present = {name.lower() for name, _ in message.get("headers", ())}
            added = [pair for pair in _HEADERS if pair[0] not in present]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
            if message["status"] >= 400:
                self._held = message
                return
        if self._held is None:
            await self._send(message)
            return
        if message["type"] == "http.response.body":
            self._body = (self._body + message.get("body", b""))[: MAX_ERROR_BYTES + 1]
            if not message.get("more_body", False):
                await self._say_no()

    async def _say_no(self) -> None:
        start, body, self._held = self._held, self._body, None
        if len(body) > MAX_ERROR_BYTES:
            said = f"The request was refused ({start['status']}); what was wrong with it is too long to repeat here."
            body = json.dumps({"error": said, "detail": said}).encode()
            kept = [pair for pair in start["headers"] if pair[0].lower() not in (b"content-length", b"content-type")]
            own = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
            start = {**start, "headers": [*kept, *own]}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _asks_elsewhere(path: str) -> bool:
    """Whether a path is of a route for files or a proxy and names an address of the network, or writes of its own."""
    for route in _FILES:
        _, separator, name = path.partition(route)
        if separator and ":/" in unquote(name).replace("\\", "/"):
            return True
    return _PROXY in path or path.rstrip("/").endswith(_DEEP_LINK)


def _is_upload(scope: Scope) -> bool:
    return scope["path"].rstrip("/").endswith(_UPLOAD)


def _most(scope: Scope) -> int:
    return limits.MAX_UPLOAD_BODY_BYTES if _is_upload(scope) else limits.MAX_CALL_BYTES


def _counted(scope: Scope, receive: Receive, most: int) -> Receive:
    """`receive` that notes the bytes of the body, and raises `_TooLong` where one of no announced length has too many.

    The note stays with the request for as long as gradio keeps that in its queue.
    """
    scope[BODY_BYTES] = 0

    async def counted() -> Message:
        message = await receive()
        scope[BODY_BYTES] += len(message.get("body", b""))
        if scope[BODY_BYTES] > most:
            raise _TooLong
        return message

    return counted


async def _refused(most: int, scope: Scope, receive: Receive, send: Send) -> None:
    said = f"The request is too long; at most {most // 1_000_000} MB are taken."
    await PlainTextResponse(said, 413)(scope, receive, send)
