"""Step 8, continued: the push, in three stages of which only the writing needs the model."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio as gr

import transact as ta
from ui.context import AppContext
from ui.errors import WrongInput
from ui.events.panels import Panels
from ui.events.runner import explained, long_step, say, watched
from ui.server import limits, sign_in
from ui.views.downloads import file_stem
from ui.work import pruning

_STOPPED = "Stopped. Nothing was pushed; a new repository may be there, still empty."


def connect(context: AppContext, panels: Panels) -> None:
    """Wire the push button: ask the hub, write and prove, then send, each of which can be stopped."""

    # gradio fills in `signed_in` by its type, with None where nobody has signed in or no sign-in is configured
    def on_push(repository: str, private: bool, replace: bool, request: gr.Request, signed_in: gr.OAuthToken | None):
        owner = context.visitor(request)
        try:
            result = context.sessions.get(owner).need_result()
            repository = limits.name("“Repository”", repository or "")
            if not repository:
                raise WrongInput("No repository was named. Give a name such as small-model, then push.")
            terms = {"token": sign_in.token(signed_in), "private": private is not False, "overwrite": replace is True}
        except Exception as error:
            yield explained(panels, error)
            return
        done: dict = {}

        def stage(name: str, title: str, work: Callable, *, model: bool = False):
            """One job; its value is kept, and its lack says that the rest must not begin."""

            def keep(value) -> dict:
                done[name] = value
                return {}

            return watched(context, panels, owner, title, work, keep, stopped=_STOPPED, kind="push", model=model)

        def write(watch) -> tuple[tempfile.TemporaryDirectory, Path, str]:
            place = tempfile.TemporaryDirectory(prefix="transact-push-")  # goes when nobody holds it any more
            folder = Path(place.name) / file_stem(result.scored.key, result.number)
            return place, folder, pruning.write_checkpoint(context.registry, owner, result, folder, watch)

        yield from stage("name", "Asking the hub", lambda watch: ta.check_push(repository, progress=watch, **terms))
        if "name" in done:
            yield from stage("written", "Writing the checkpoint", write, model=True)
        if "written" in done:
            place, folder, said = done["written"]
            with place:
                yield from stage(
                    "pushed", "Pushing", lambda watch: ta.push(folder, done["name"], progress=watch, **terms)
                )
        if "pushed" in done:
            pushed = done["pushed"]
            seen = "private" if pushed.private else "public"
            yield say(panels, f"The model is at {pushed.url} ({seen}), in one commit. {said}", "good")

    panel = panels.share
    long_step(context, panels, panel.push.click, on_push, panel.inputs)
