"""Who is at the other end: sessions with an open stream of answers or of heartbeats, and where requests come from."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from gradio.context import LocalContext
from starlette.datastructures import Headers
from starlette.types import Scope

_MOST_HOPS = 20


class Audience:
    """The sessions (or single events) that somebody listens to right now; changed on the event loop alone."""

    def __init__(self):
        self._listening: Counter[str] = Counter()
        self._is_told = False

    @contextmanager
    def listening(self, scope: Scope) -> Iterator[None]:
        """Count the request as a listener, where it is one, for as long as it is answered."""
        self._is_told = True
        name = _listened_to(scope)
        if name is None:
            yield
            return
        self._listening[name] += 1
        try:
            yield
        finally:
            self._listening[name] -= 1
            if not self._listening[name]:
                del self._listening[name]

    def hears(self, name: str) -> bool:
        """Whether anybody listens to that session or event."""
        return name in self._listening

    def hears_this(self) -> bool:
        """Whether anybody listens for the event of gradio's that is handled in this context; may be asked anywhere.

        Outside of one, and for one that was asked for around the queue, somebody does: who called. So it is where the
        page is served by another server than ours, which tells of no listeners.
        """
        event, request = LocalContext.event_id.get(None), LocalContext.request.get(None)
        session = getattr(request, "session_hash", None)
        return not self._is_told or event is None or self.hears(event) or (session is not None and self.hears(session))


def _listened_to(scope: Scope) -> str | None:
    """The session or event whose news a request waits for."""
    if scope["method"] != "GET":
        return None
    folder, _, last = scope["path"].rstrip("/").rpartition("/")
    if folder.endswith("/queue") and last == "data":
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        return query.get("session_hash", [None])[0]
    return last if folder.endswith("/heartbeat") or "/gradio_api/call/" in folder + "/" else None


def address(scope: Scope) -> str | None:
    """Where a request comes from, as far as that tells visitors apart; None where it does not.

    Behind a proxy that is the nearest address of the internet that the proxies wrote down. A private one may be a
    proxy's, behind which all visitors look the same.
    """
    peer = (scope.get("client") or ("",))[0]
    written = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")[-_MOST_HOPS:]
    for hop in (peer, *reversed(written)):
        try:
            ip = ipaddress.ip_address(hop.strip())
        except ValueError:
            return None
        if ip.is_global:
            # who has one address of IPv6 has 2⁶⁴ of them
            return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
    return None
