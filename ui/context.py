"""What every event works with: the app's collaborators, one set for all visitors."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

import gradio as gr

from ui.server.audience import Audience, address
from ui.server.telemetry import Telemetry
from ui.state.session import Scored
from ui.state.session_store import Sessions
from ui.views.downloads import Exports
from ui.work.jobs import MODEL, SMALL, Jobs
from ui.work.registry import Registry

_SMALL_PARAMETERS = 20_000_000


@dataclass(frozen=True)
class AppContext:
    """The app's collaborators; one set for all visitors.

    `unpainted`: updates that a visitor's steps have kept for their end (see `long_step`).
    """

    registry: Registry
    sessions: Sessions
    jobs: Jobs
    exports: Exports
    telemetry: Telemetry
    first_scored: Scored | None
    unpainted: dict[str, dict] = field(default_factory=dict)
    audience: Audience = field(default_factory=Audience)

    def line_of(self, owner: str) -> str:
        """The queue for work on the visitor's model: what takes seconds must not wait for another's minutes.

        Raises `NotYet` for a model whose weights are not here, which no work is done with.
        """
        key = self.sessions.get(owner).key
        key.need_weights()
        loaded = self.registry.in_memory(key)
        return SMALL if loaded is not None and loaded.spec.num_parameters <= _SMALL_PARAMETERS else MODEL

    def visitor(self, request: gr.Request) -> str:
        """Whose work is done on a page: its browser tab's; a caller without a name is new each time."""
        return self._known(self.sessions.owner_on_page, request)

    def client(self, request: gr.Request) -> str:
        """Whose work a script does, which has no tab."""
        return self._known(self.sessions.owner, request)

    def left(self, session_hash: str) -> None:
        """End the work of a visitor who is gone, unless another page of the same one is open."""
        if self.sessions.leave(session_hash):
            self.jobs.stop_all(self.sessions.owner(session_hash))

    def _known(self, owner_of: Callable[[str], str], request: gr.Request) -> str:
        owner = owner_of(request.session_hash) if request.session_hash else secrets.token_hex(16)
        asked = getattr(request, "request", None)
        if asked is not None:
            self.jobs.come_from(owner, address(asked.scope))
        return owner
