"""Bounds on what gradio prints, keeps and queues: it is made for few visitors, who mean well.

Only objects of the page are changed, but for what it prints and how it words an error, which are functions of its
modules.
"""

import logging
from typing import Any

from gradio import queueing, route_utils, routes, utils
from gradio.blocks import Blocks, BlocksConfig
from starlette.requests import Request

from ui.server import limits
from ui.server.audience import Audience, address
from ui.server.request_guard import BODY_BYTES

logger = logging.getLogger(__name__)

MAX_WAITING = 400
"""Events of all visitors that wait for a thread."""
MAX_WAITING_EACH = 100
"""Of those and the ones at work, from one address of the internet."""
MAX_UNHEARD = 12
"""Of all these, those that nobody listens to, as it is between a question and the request for its answer."""
MAX_WAITING_BYTES = 6 * limits.MAX_CALL_BYTES
"""Of the requests of all these."""
MAX_PARTS = 50_000
"""Values in one request, lists within lists and so on included; the longest of this page has some hundreds."""
MAX_ERROR_CHARACTERS = 1_000
_FULL = "So many visitors are here that no more can wait. Try again in a moment."
_FULL_OF_OWN = "So much that was asked for from your address waits here already. Wait for it, then try again."
_TOO_MANY_PARTS = f"The request holds too many values; at most {MAX_PARTS:,} are taken. Give less at a time."


class _Silent:
    """In place of the module `traceback`: an error is logged by its class and place, as it may quote a visitor."""

    def print_exc(self, *_, **__) -> None:
        logger.error("a step failed", exc_info=True)


_worded = utils.error_payload


def _shortly(error: BaseException | None, show_error: bool) -> dict[str, Any]:
    """Gradio's account of an error, without the megabytes that it may quote."""
    payload = _worded(error, show_error)
    sentence = payload.get("error")
    if isinstance(sentence, str) and len(sentence) > MAX_ERROR_CHARACTERS:
        payload["error"] = f"{sentence[:MAX_ERROR_CHARACTERS]} …"
    return payload


def keep_quiet() -> None:
    """From here on gradio prints nothing that a visitor sent, and repeats little of it."""
    for module in (queueing, routes, route_utils):
        module.traceback = _Silent()
    utils.error_payload = queueing.error_payload = _shortly


class _PageConfig(BlocksConfig):
    """The page's parts, of which each visitor is given a list of its own."""

    def __copy__(self) -> BlocksConfig:
        copied = super().__copy__()
        copied.__class__ = _VisitorConfig
        return copied


class _VisitorConfig(BlocksConfig):
    """A visitor's list of the page's parts.

    Gradio describes every part of it for links that this page does not have. That took 30 ms of the event loop for
    every new session, also for one that only left.
    """

    @staticmethod
    def config_for_block(_id: int, *_, **__) -> dict:
        return {}


class Doorkeeper:
    """Says who may join gradio's queue."""

    def __init__(self, queue: queueing.Queue, audience: Audience):
        self._queue, self._push, self._audience = queue, queue.push, audience

    async def push(self, body, request: Request, username: str | None):
        """As gradio's own, for a queue with room for that request."""
        why = self._refused(body, request)
        return (False, why, "queue_full") if why else await self._push(body=body, request=request, username=username)

    def _refused(self, body, request: Request) -> str | None:
        hears = self._audience.hears
        events = list(self._queue.event_ids_to_events.values())
        unheard = sum(not (hears(event.session_hash) or hears(event._id)) for event in events)
        if unheard >= MAX_UNHEARD and not (body.session_hash and hears(body.session_hash)):
            return _FULL
        waiting = [event.request.scope for event in events]
        own = address(request.scope)
        if own is not None and sum(address(scope) == own for scope in waiting) >= MAX_WAITING_EACH:
            return _FULL_OF_OWN
        size = sum(scope.get(BODY_BYTES, 0) for scope in (*waiting, request.scope))
        if len(self._queue) >= MAX_WAITING or size > MAX_WAITING_BYTES:
            return _FULL
        return _TOO_MANY_PARTS if _has_more_parts(body.data, MAX_PARTS) else None


def bound(page: Blocks, audience: Audience, *, direct: bool) -> None:
    """Let `page`, complete but not yet launched, keep to these limits.

    `direct`: whether events may be called without waiting in the queue.
    """
    page.default_config.__class__ = _PageConfig
    page.queue(max_size=MAX_WAITING, api_open=direct)
    page._queue.push = Doorkeeper(page._queue, audience).push


def _has_more_parts(value, most: int) -> bool:
    """Whether a value of JSON has more than so many values in it."""
    counted, left = 0, [value]
    while left:
        part = left.pop()
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        counted += len(inner)
        if counted > most:
            return True
        left.extend(part for part in inner if isinstance(part, dict | list))
    return False
