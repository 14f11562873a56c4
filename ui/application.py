"""The page put together, and how it is served."""

import gc
import logging
import sys
from dataclasses import replace

import gradio as gr
from starlette.middleware import Middleware

import transact as ta
from ui import endpoints, health, page_table
from ui.context import AppContext
from ui.events import page_load
from ui.events.panels import MAX_THREADS
from ui.format.theme import ASSETS, STYLE_SHEET, instrument_theme
from ui.pages import guide
from ui.pages.status import TITLE
from ui.server import environment, gradio_limits, lifespan, limits, unknown_events
from ui.server.abandoned_work import Unheard
from ui.server.audience import Audience
from ui.server.disk import disk_budget
from ui.server.memory import memory_budget
from ui.server.request_guard import Guard
from ui.server.telemetry import Telemetry, log_to_stderr, resident_bytes
from ui.state import plan_of_choice, slider_steps
from ui.state.session import BUNDLED, Sampling, Scored, Session
from ui.state.session_store import Sessions
from ui.text_sources import text_source
from ui.views.downloads import Exports
from ui.work import scoring
from ui.work.jobs import Jobs
from ui.work.registry import Registry
from ui.work.watch import Watch

logger = logging.getLogger(__name__)
_UPLOAD_LIMIT = limits.MAX_UPLOAD_BYTES + 2_000_000
"""A little above our own limit, so that a file just over it gets our sentence and not a transport error."""
_CACHE_SECONDS = 6 * 3600
_SESSIONS_SHARE = 0.2
"""Of the memory budget: for the calibration runs that visitors' work refers to."""


def launch(server_name: str, server_port: int) -> None:
    """Build the page and serve it until the process ends."""
    log_to_stderr()
    context = open_context()
    page = page_of(context)
    page.launch(
        server_name=server_name, server_port=server_port, prevent_thread_lock=True, quiet=True,
        **launch_options(context, page),
    )  # fmt: skip
    log_to_stderr()  # again, as the server has set up its own
    gc.collect()
    gc.freeze()  # what is there now stays: a million objects, over which each full collection stopped everyone
    context.telemetry.event(
        "started", version=ta.__version__, seconds=context.telemetry.uptime_seconds, budget_bytes=memory_budget(),
        ready=context.first_scored is not None, resident_bytes=resident_bytes(),
    )  # fmt: skip
    sys.stdout.write(f"{TITLE} listens on {page.local_url}\n")
    sys.stdout.flush()
    page.block_thread()


def launch_options(context: AppContext | None = None, page: gr.Blocks | None = None) -> dict:
    """The arguments of `launch`, but for the address.

    With a context, hosts can probe the server; with its page too, work that nobody waits for any more is stopped.
    """
    server = {"middleware": [Middleware(Guard)], "exception_handlers": unknown_events.HANDLERS}
    if context is not None:
        guard = Middleware(Guard, context.audience, context.registry.disk.upload_refused)
        server |= {"middleware": [guard], "routes": health.routes(context)}
    if context is not None and page is not None:
        server["lifespan"] = lifespan.together(
            Unheard(lambda: page._queue, context.audience, context.left).watching, context.registry.disk.watching
        )
    return {
        "theme": instrument_theme(),
        "css_paths": [STYLE_SHEET, guide.STYLE_SHEET],
        "favicon_path": ASSETS / "favicon.png",
        "footer_links": ["api", "settings"],
        "run_history": False,
        "max_file_size": _UPLOAD_LIMIT,
        "enable_monitoring": False,
        "app_kwargs": server,
        "show_error": True,
        "ssr_mode": False,
        "pwa": False,
        "max_threads": MAX_THREADS,
        "state_session_capacity": environment.max_sessions(),
    }


def build(opening: Scored | None = None) -> gr.Blocks:
    """The whole page, with scores in view so that nobody meets an empty one.

    `opening`: what a visitor meets; by default the bundled model, scored on the mixed sample.
    """
    return page_of(open_context(opening))


def open_context(opening: Scored | None = None) -> AppContext:
    """What all visitors share; `opening` is what a new one sees."""
    environment.max_trained_tokens()  # a setting that cannot be read is reported at the start, not to visitors
    telemetry = Telemetry()
    budget = memory_budget()
    registry = Registry(telemetry, budget_bytes=int(budget * (1 - _SESSIONS_SHARE)), disk_bytes=disk_budget())
    audience = Audience()
    jobs, exports = Jobs(telemetry, audience.hears_this, registry.speeds.learn), Exports(registry.disk)
    scored = opening or _warm_up(registry)
    spec = scored.spec if scored else None

    def fresh(id: str) -> Session:
        session = Session(id, BUNDLED, spec, scored)
        if spec is None:
            return session
        return plan_of_choice.planned(replace(session, choice=slider_steps.start(spec)))

    unpainted: dict[str, dict] = {}

    def forget(id: str) -> None:
        jobs.stop(id)
        registry.forget(id)
        unpainted.pop(id, None)
        exports.forget(id)
        telemetry.add("transact_evictions_total", what="session", why="expired")
        telemetry.event("evicted", what="session", why="expired")

    sessions = Sessions(fresh, forget, max_sessions=environment.max_sessions(), max_bytes=budget * _SESSIONS_SHARE)
    return AppContext(registry, sessions, jobs, exports, telemetry, scored, unpainted, audience)


def page_of(context: AppContext) -> gr.Blocks:
    """The page at which visitors work with `context`."""
    gradio_limits.keep_quiet()

    def on_leave(request: gr.Request):
        # a phone that sleeps also seems to leave, so what was made stays until it expires; and a page that was
        # reloaded may be heard to leave after the new one has begun a job
        context.left(request.session_hash)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(_CACHE_SECONDS, _CACHE_SECONDS)) as page:
        session = context.sessions.fresh("first paint")
        panels = page_table.lay_out(session)
        page_table.connect(context, panels)
        page_load.connect(context, panels, page)
        endpoints.connect(context)
        page.unload(on_leave)
    gradio_limits.bound(page, context.audience, direct=not environment.is_public())
    return page


def _warm_up(registry: Registry) -> Scored | None:
    """The bundled model and its scores on the mixed sample, shared by all visitors.

    Without them (a clone whose large files are missing) the page still opens and says what to do.
    """
    try:
        return scoring.score(registry, BUNDLED, text_source.sample("mixed"), Sampling(), Watch("Warming up"))
    except (ta.TransactError, OSError) as error:
        logger.warning("the bundled model is not ready: %s", error)
        return None
