"""Several settings cut and measured, one after the other, in one job."""

from dataclasses import replace

import transact as ta
from ui.state.session import Queued, Result, Session
from ui.text_sources.text_source import TextSource
from ui.work import job_steps, measuring, pruning
from ui.work.forecast import Step
from ui.work.registry import Registry
from ui.work.watch import Watch


def steps(registry: Registry, session: Session, text: TextSource, **wanted) -> list[Step]:
    """What working off the queue consists of, each setting shown as one step."""
    every = []
    for number, queued in enumerate(session.queue, 1):
        one = [
            *job_steps.cutting(registry, _as_queued(session, queued), queued.repair, search=queued.search),
            *job_steps.measuring(registry, queued.scored, text, **wanted),
        ]
        every += [replace(step, group=f"Setting {number}") for step in one]
    return every


def work_off(registry: Registry, session: Session, text: TextSource, watch: Watch, **settings) -> list[Result]:
    """A result for each setting of the queue, found (`watch.finds`) as it is ready; a stop keeps those.

    Raises `Cancelled` where nothing was cut yet.
    """
    results: list[Result] = []
    for queued in session.queue:
        numbered = replace(_as_queued(session, queued), counted=session.counted + len(results))
        try:
            result = pruning.cut(registry, numbered, queued.repair, watch, search=queued.search)
        except ta.Cancelled:
            if results:
                break
            raise
        results.append(measuring.measure_unless_stopped(registry, session.id, result, text, watch, **settings))
        watch.finds(tuple(results))
        if watch.stop.is_set():
            break
    return results


def _as_queued(session: Session, queued: Queued) -> Session:
    """The session as it was when that setting was put into the queue."""
    return replace(session, scored=queued.scored, choice=queued.choice, plan=queued.plan)
