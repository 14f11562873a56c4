"""All visitors' sessions, bounded in number and bytes; idle ones expire."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from ui.errors import NotYet
from ui.state.session import Session

IDLE_SECONDS = 6 * 3600
_MAX_REMEMBERED = 20_000
ARRIVAL_SECONDS = 3.0
"""How long the first click on a page waits for the name of its tab; a browser without scripts never sends one."""


class Sessions:
    """All visitors, by the hash their browser tab or client carries.

    Bounded in number and in the bytes of the calibration runs that they refer to; idle ones expire.
    """

    def __init__(
        self, fresh: Callable[[str], Session], forget: Callable[[str], None], *,
        max_sessions: float = math.inf, max_bytes: float = math.inf,
    ):  # fmt: skip
        self.fresh = fresh
        self._forget = forget
        self._max_sessions = max_sessions
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._sessions: OrderedDict[str, tuple[float, Session]] = OrderedDict()
        self._expired: OrderedDict[str, None] = OrderedDict()
        self._arrived = threading.Condition(self._lock)
        self._tabs: OrderedDict[str, str] = OrderedDict()
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._open: OrderedDict[str, str] = OrderedDict()

    def adopt(self, hash: str, tab: str | None) -> bool:
        """Let the page load `hash` go on with the work of the browser tab `tab`, so that a reload loses nothing.

        `tab` is a secret that the tab made up, None where the browser keeps none. True where the tab has work here
        already.
        """
        with self._arrived:
            self._drop_idle()
            owner = self._tabs.get(tab, hash) if tab else hash
            if owner not in self._sessions:
                owner = hash
            if tab:
                self._tabs[tab] = owner
            self._owners[hash] = self._open[hash] = owner
            for known in (self._tabs, self._owners, self._open):
                if len(known) > _MAX_REMEMBERED:
                    known.popitem(last=False)
            self._arrived.notify_all()
            return owner != hash

    def owner(self, hash: str) -> str:
        """Whose work a page load or client shows: its tab's, or its own."""
        return self._owners.get(hash, hash)

    def owner_on_page(self, hash: str) -> str:
        """As `owner`, for what is pressed on a page: the name of its tab is waited for, which was sent before it."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: hash in self._owners, timeout=ARRIVAL_SECONDS):
                self.adopt(hash, None)
            return self.owner(hash)

    def leave(self, hash: str) -> bool:
        """Note that a page load was closed; True where its visitor has no other open, as after a reload."""
        with self._lock:
            owner = self._open.pop(hash, self.owner(hash))
            return owner not in self._open.values()

    def get(self, id: str) -> Session:
        """The visitor's session, a fresh one at the first call. Raises `NotYet` where it has expired."""
        with self._lock:
            self._drop_idle()
            if id in self._expired:
                raise NotYet("This page was idle for long and its work has been cleared away; reload the page.")
            _, session = self._sessions.get(id) or (0.0, self.fresh(id))
            self._put(session)
            self._drop_idle()  # where it is one more than are kept
            return session

    def update(self, id: str, change: Callable[[Session], Session]) -> Session:
        """Replace the visitor's session by `change` of it, with nothing in between, and return it."""
        with self._lock:
            before = self.get(id)
            session = change(before)
            if session.scored is not before.scored or session.second is not before.second:
                session = session.bounded()
                self._put(session)
                self._drop_large()
            self._put(session)
            return session

    def __len__(self) -> int:
        return len(self._sessions)

    def _put(self, session: Session) -> None:
        self._sessions[session.id] = (time.monotonic(), session)
        self._sessions.move_to_end(session.id)

    def _drop_idle(self) -> None:
        now = time.monotonic()
        while self._sessions:
            id, (seen, _) = next(iter(self._sessions.items()))
            if now - seen < IDLE_SECONDS and len(self._sessions) <= self._max_sessions:
                return
            self._drop(id)

    def _drop_large(self) -> None:
        """Drop those idle longest until what the others refer to fits; the latest one stays."""
        while len(self._sessions) > 1:
            runs = {id(run): run for _, session in self._sessions.values() for run in session.runs}
            if sum(run.held_bytes for run in runs.values()) <= self._max_bytes:
                return
            self._drop(next(iter(self._sessions)))

    def _drop(self, id: str) -> None:
        del self._sessions[id]
        self._expired[id] = None
        if len(self._expired) > _MAX_REMEMBERED:
            self._expired.popitem(last=False)
        self._forget(id)
