"""Puts a folder on the Hugging Face hub in one commit; run by path in a process of its own, which can be killed.

The hub client waits for an answer without a time limit, and a waiting thread cannot be stopped. The token comes with
the request and is in no argument, no environment variable and no answer.
"""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_session
from huggingface_hub import errors as hub_errors

_MADE_BY_THE_HUB = ".gitattributes"


class Refused(Exception):
    """The push is not allowed, for the reason named by `kind`."""

    def __init__(self, kind: str, **facts):
        super().__init__(kind)
        self.answer = {"refused": kind, **facts}


def look(api: HfApi, request: dict) -> tuple[str, ModelInfo | None]:
    """The repository's full name, and its present state; raises `Refused` where that must not change."""
    name = request["repo_id"]
    try:
        user = api.whoami()["name"]
    except hub_errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise Refused("token") from None
        raise
    name = name if "/" in name else f"{user}/{name}"
    try:
        existing = api.model_info(name)
    except hub_errors.RepositoryNotFoundError:
        return name, None
    if request["private"] and not existing.private:
        raise Refused("public", repo_id=name)
    if _files(existing) and not request["overwrite"]:
        raise Refused("exists", repo_id=name, files=len(_files(existing)))
    return name, existing


def send(api: HfApi, name: str, existing: ModelInfo | None, request: dict, report: Callable[[dict], None]) -> dict:
    """All files of the folder in one commit that also removes all others; nothing changes before it."""
    folder = Path(request["folder"])
    additions = [CommitOperationAdd(file, folder / file) for file in request["files"]]
    sizes = [addition.upload_info.size for addition in additions]
    report({"progress": [0, sum(sizes), "bytes"]})
    if existing is None:
        try:
            api.create_repo(name, private=request["private"])
        except hub_errors.HfHubHTTPError as error:
            if error.response.status_code == 409:
                raise Refused("taken", repo_id=name) from None
            raise
    for index, addition in enumerate(additions, start=1):
        api.preupload_lfs_files(name, [addition], free_memory=False)
        report({"progress": [sum(sizes[:index]), sum(sizes), "bytes"]})
    surplus = [] if existing is None else sorted(_files(existing) - set(request["files"]))
    commit = api.create_commit(
        name,
        [*additions, *(CommitOperationDelete(file) for file in surplus)],
        commit_message=request["message"],
        # fails if there was another commit in between
        parent_commit=None if existing is None else existing.sha,
    )
    private = request["private"] if existing is None else bool(existing.private)
    return {"repo_id": name, "url": f"{api.endpoint}/{name}", "commit": commit.oid, "private": private}


def _files(existing: ModelInfo) -> set[str]:
    return {file.rfilename for file in existing.siblings or ()} - {_MADE_BY_THE_HUB}


def why(error: BaseException) -> dict:
    """The failure as facts: the hub's status where it answered."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the client wraps what goes wrong in its threads
    message = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if isinstance(error, hub_errors.HfHubHTTPError):
        reason = " ".join((error.server_message or "no reason given").split())[:200]
        return {"refused": "status", "status": error.response.status_code, "message": reason}
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return {"refused": "offline"}
    if isinstance(error, (hub_errors.HTTPError, ConnectionError)):
        return {"refused": "network", "message": message}
    return {"refused": "other", "message": message}


def answer(request: dict, report: Callable[[dict], None]) -> dict:
    """Check the repository and, where the request names a folder, send it."""
    api, name = HfApi(token=request["token"]), None
    try:
        get_session().timeout = request["first_answer_seconds"]
        name, existing = look(api, request)
        if request["folder"] is None:
            return {"repo_id": name}
        get_session().timeout = request["answer_seconds"]
        return send(api, name, existing, request, report)
    except Refused as refused:
        return refused.answer
    except Exception as error:  # network failures have many types
        return {"repo_id": name, **why(error)}
