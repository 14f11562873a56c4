"""Abandoned work: answers that nobody fetches are dropped, and work that nobody waits for is stopped.

Gradio keeps the answers of two thousand names for as long as it runs, and does whatever was asked for to its end.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from gradio.queueing import Queue

from ui.server.audience import Audience
from ui.server.lifespan import running_beside

logger = logging.getLogger(__name__)

SILENT_SECONDS = 60.0
"""How long a session may have no listener, as after a lost connection, or between a question and its answer."""
MAX_UNREAD = 400
"""Messages of all visitors that lie here unread, a repainted page of a megabyte or so in each."""
_SWEEP_SECONDS = 1.0


class Unheard:
    """Watches over the queue of a page; used on the event loop alone."""

    def __init__(self, queue: Callable[[], Queue], audience: Audience, stop: Callable[[str], None]):
        """`queue` gives the page's; `stop` ends the work that a session asked for, unless its visitor is here."""
        self._queue, self._audience, self._stop = queue, audience, stop
        self._since: dict[str, tuple[frozenset[str], float]] = {}

    def watching(self, app) -> AbstractAsyncContextManager[None]:
        """Sweep for as long as the server runs: its lifespan."""
        return running_beside(self._sweep_on)

    async def sweep(self, now: float) -> None:
        """Drop what has had no listener for too long at the time `now`, and what exceeds the limits."""
        queue = self._queue()
        sessions = _sessions(queue)
        self._since = {name: since for name, since in self._since.items() if name in sessions}
        for name, events in sessions.items():
            before, since = self._since.get(name, (None, now))
            if before != events or self._hears(name, events):
                self._since[name] = (events, now)
            elif now - since >= SILENT_SECONDS:
                await self._drop(name, events)
        unread = {name: messages.qsize() for name, messages in queue.pending_messages_per_session.items()}
        total = sum(unread.values())
        for name in sorted(unread, key=lambda name: (self._hears(name, sessions[name]), -unread[name])):
            if total <= MAX_UNREAD:
                break
            total -= unread[name]
            await self._drop(name, sessions[name])

    def _hears(self, name: str, events: frozenset[str]) -> bool:
        return any(map(self._audience.hears, (name, *events)))

    async def _drop(self, name: str, events: frozenset[str]) -> None:
        queue = self._queue()
        await queue.clean_events(session_hash=name)
        queue.pending_messages_per_session.pop(name, None)
        queue.pending_event_ids_session.pop(name, None)
        self._since.pop(name, None)
        if events:
            await asyncio.to_thread(self._stop, name)  # may wait for a change of that visitor's session

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.sweep(time.monotonic())
            except Exception:  # gradio's own book-keeping; the next sweep finds what this one left
                logger.exception("a sweep failed")


def _sessions(queue: Queue) -> dict[str, frozenset[str]]:
    """Every session with messages or work, and its events that have not ended."""
    names = {*queue.pending_messages_per_session, *queue.pending_event_ids_session}
    names |= {event.session_hash for events in queue.active_jobs if events for event in events}
    return {name: frozenset(queue.pending_event_ids_session.get(name, ())) for name in names}
