"""Step 8, continued: the push, in three stages of which only the writing needs the model."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.errors import WrongInput
from ui.events.panels import Panels
from ui.events.runner import explained, long_step, say, watched
from ui.server import limits, sign_in
from ui.state.session import Result
from ui.views.downloads import file_stem
from ui.work import pruning
from ui.work.jobs import MODEL
from ui.work.watch import Watch

_STOPPED = "Stopped. Nothing was pushed; a new repository may be there, still empty."


@dataclass(frozen=True)
class PushForm:
    """What stands in the fields, as the page sends it."""

    repository: str | None
    private: bool
    replace: bool

    def terms(self, token: str | None) -> dict:
        """How the model is pushed, as `ta.push` takes it; private unless that is switched off."""
        return {"token": token, "private": self.private is not False, "overwrite": self.replace is True}


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the push button: ask the hub, write and prove, then send, each of which can be stopped."""
    long_step(context, panels, panels.share.push.click, on_push, panels.share.inputs)


# gradio fills in `signed_in` by its type, with None where nobody has signed in or no sign-in is configured
def on_push(context: AppContext, panels: Panels, request: gr.Request, signed_in: gr.OAuthToken | None, *values):
    owner = context.visitor(request)
    try:
        form = PushForm(*values)
        result = context.sessions.get(owner).need_result()
        repository = limits.name("“Repository”", form.repository or "")
        if not repository:
            raise WrongInput("No repository was named. Give a name such as small-model, then push.")
        terms = form.terms(sign_in.token(signed_in))
    except Exception as error:
        yield explained(panels, error)
        return
    done: dict = {}

    def stage(name: str, title: str, work: Callable, *, line: str | None = None):
        """One job; its value is kept, and its lack says that the rest must not begin."""

        def keep(value) -> dict:
            done[name] = value
            return {}

        return watched(context, panels, owner, title, work, keep, stopped=_STOPPED, kind="push", line=line)

    yield from stage("name", "Asking the hub", lambda watch: ta.check_push(repository, progress=watch, **terms))
    if "name" in done:
        yield from stage("written", "Writing the checkpoint", partial(_write, context, owner, result), line=MODEL)
    if "written" in done:
        place, folder, note = done["written"]
        with place:
            yield from stage("pushed", "Pushing", lambda watch: ta.push(folder, done["name"], progress=watch, **terms))
    if "pushed" in done:
        pushed = done["pushed"]
        seen = "private" if pushed.private else "public"
        yield say(panels, f"The model is at {pushed.url} ({seen}), in one commit. {note}", "good")


def _write(
    context: AppContext, owner: str, result: Result, watch: Watch
) -> tuple[tempfile.TemporaryDirectory, Path, str]:
    """The checkpoint in a folder that goes when nobody holds it any more, and what to say of it."""
    place = tempfile.TemporaryDirectory(prefix="transact-push-")
    folder = Path(place.name) / file_stem(result.scored.key, result.number)
    return place, folder, pruning.write_checkpoint(context.registry, owner, result, folder, watch)
