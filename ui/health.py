"""`/healthz` and `/metrics`: the state of the app, for a host's probes.

Both are answered on the event loop, so they never wait for a thread, let alone for a job.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import transact as ta
from ui.context import AppContext
from ui.server.telemetry import resident_bytes

_HELP = {
    "transact_jobs_total": "Jobs that ended, by kind and outcome.",
    "transact_job_seconds_total": "Seconds that jobs worked, by kind.",
    "transact_job_waited_seconds_total": "Seconds that jobs waited for others, by kind.",
    "transact_jobs_refused_total": "Jobs refused because too many waited.",
    "transact_evictions_total": "Things dropped from memory, by what and why.",
    "transact_evicted_bytes_total": "Bytes of what was dropped from memory, by what and why.",
    "transact_jobs_running": "Jobs that work now.",
    "transact_jobs_waiting": "Jobs that wait for the model.",
    "transact_sessions": "Visitors whose work is kept.",
    "transact_models": "Models in memory, dense and pruned.",
    "transact_held_bytes": "Bytes of the models, scores and statistics in memory.",
    "transact_budget_bytes": "Bytes that these may fill: four fifths of the memory budget.",
    "process_resident_memory_bytes": "Resident memory of the process.",
    "process_uptime_seconds": "Seconds since the start.",
}


def routes(context: AppContext) -> list[Route]:
    """The two routes, to be added to the server's own."""

    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse(health(context))

    async def metrics(request: Request) -> PlainTextResponse:
        return PlainTextResponse(exposition(context), media_type="text/plain; version=0.0.4")

    return [Route("/healthz", healthz), Route("/metrics", metrics)]


def health(context: AppContext) -> dict:
    """Status "ok", or "degraded" where the page opened without its bundled model; and the most telling figures."""
    gauges = _gauges(context)
    return {
        "status": "ok" if context.first_scored is not None else "degraded",
        "version": ta.__version__,
        "uptime_seconds": round(context.telemetry.uptime_seconds, 1),
        "models": gauges["transact_models"],
        "jobs_running": gauges["transact_jobs_running"],
        "jobs_waiting": gauges["transact_jobs_waiting"],
        "sessions": gauges["transact_sessions"],
        "held_bytes": gauges["transact_held_bytes"],
        "budget_bytes": gauges["transact_budget_bytes"],
        "resident_bytes": gauges["process_resident_memory_bytes"],
    }


def exposition(context: AppContext) -> str:
    """All counters and gauges in Prometheus' text format 0.0.4."""
    samples = {**context.telemetry.counters(), **{(name, ()): value for name, value in _gauges(context).items()}}
    lines, family = [], ""
    for (name, labels), value in sorted(samples.items()):
        if name != family:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]
            family = name
        marks = ",".join(f'{label}="{text}"' for label, text in labels)
        lines.append(f"{name}{{{marks}}} {value:.15g}" if marks else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _gauges(context: AppContext) -> dict[str, float]:
    return {
        "transact_jobs_running": context.jobs.running,
        "transact_jobs_waiting": context.jobs.waiting,
        "transact_sessions": len(context.sessions),
        "transact_models": context.registry.models,
        "transact_held_bytes": context.registry.held_bytes,
        "transact_budget_bytes": context.registry.budget_bytes,
        "process_resident_memory_bytes": resident_bytes(),
        "process_uptime_seconds": context.telemetry.uptime_seconds,
    }
