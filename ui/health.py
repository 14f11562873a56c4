"""`/healthz` and `/metrics`: how the app fares, for a host's probes.

Both are answered on the event loop, so they never wait for a thread, let alone for a job.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

import transact as ta
from ui.context import Desk
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


def routes(desk: Desk) -> list[Route]:
    """The two routes, to be added to the server's own."""

    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse(health(desk))

    async def metrics(request: Request) -> PlainTextResponse:
        return PlainTextResponse(exposition(desk), media_type="text/plain; version=0.0.4")

    return [Route("/healthz", healthz), Route("/metrics", metrics)]


def health(desk: Desk) -> dict:
    """Status "ok", or "degraded" where the page opened without its bundled model; and the most telling figures."""
    gauges = _gauges(desk)
    return {
        "status": "ok" if desk.first_scored is not None else "degraded",
        "version": ta.__version__,
        "uptime_seconds": round(desk.telemetry.uptime_seconds, 1),
        "models": gauges["transact_models"],
        "jobs_running": gauges["transact_jobs_running"],
        "jobs_waiting": gauges["transact_jobs_waiting"],
        "sessions": gauges["transact_sessions"],
        "held_bytes": gauges["transact_held_bytes"],
        "budget_bytes": gauges["transact_budget_bytes"],
        "resident_bytes": gauges["process_resident_memory_bytes"],
    }


def exposition(desk: Desk) -> str:
    """All counters and gauges in Prometheus' text format 0.0.4."""
    samples = {**desk.telemetry.counters(), **{(name, ()): value for name, value in _gauges(desk).items()}}
    lines, family = [], ""
    for (name, labels), value in sorted(samples.items()):
        if name != family:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]
            family = name
        marks = ",".join(f'{label}="{text}"' for label, text in labels)
        lines.append(f"{name}{{{marks}}} {value:.15g}" if marks else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _gauges(desk: Desk) -> dict[str, float]:
    return {
        "transact_jobs_running": desk.jobs.running,
        "transact_jobs_waiting": desk.jobs.waiting,
        "transact_sessions": len(desk.sessions),
        "transact_models": desk.registry.models,
        "transact_held_bytes": desk.registry.held_bytes,
        "transact_budget_bytes": desk.registry.budget_bytes,
        "process_resident_memory_bytes": resident_bytes(),
        "process_uptime_seconds": desk.telemetry.uptime_seconds,
    }
