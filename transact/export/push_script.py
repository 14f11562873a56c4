"""Puts a folder on the Hugging Face hub in one commit; run by path in a process of its own, which can be stopped.

The hub client waits for an answer without an end, and a thread that waits cannot be stopped. The token comes with the
request and is in no argument, no environment and no answer.
"""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, get_session
from huggingface_hub import errors as hub_errors

_MADE_BY_THE_HUB = ".gitattributes"


class Refused(Exception):
    """The hub's rules or ours say no; `kind` says which."""

    def __init__(self, kind: str, **facts):
        super().__init__(kind)
        self.answer = {"refused": kind, **facts}


def look(api: HfApi, request: dict) -> tuple[str, ModelInfo | None]:
    """The repository's full name, and what is there already; raises `Refused` where that must stay as it is."""
    name = request["repo_id"]
    try:
        user = api.whoami()["name"]
    except hub_errors.HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise Refused("token") from None
        raise
    name = name if "/" in name else f"{user}/{name}"
    try:
        found = api.model_info(name)
    except hub_errors.RepositoryNotFoundError:
        return name, None
    if request["private"] and not found.private:
        raise Refused("public", repo_id=name)
    if _files(found) and not request["overwrite"]:
        raise Refused("exists", repo_id=name, files=len(_files(found)))
    return name, found


def send(api: HfApi, name: str, found: ModelInfo | None, request: dict, tell: Callable[[dict], None]) -> dict:
    """All files of the folder in one commit that also removes what else is there; nothing changes before it."""
    folder = Path(request["folder"])
    additions = [CommitOperationAdd(file, folder / file) for file in request["files"]]
    sizes = [addition.upload_info.size for addition in additions]
    tell({"progress": [0, sum(sizes), "bytes"]})
    if found is None:
        try:
            api.create_repo(name, private=request["private"])
        except hub_errors.HfHubHTTPError as error:
            if error.response.status_code == 409:
                raise Refused("taken", repo_id=name) from None
            raise
    for index, addition in enumerate(additions, start=1):
        api.preupload_lfs_files(name, [addition], free_memory=False)
        tell({"progress": [sum(sizes[:index]), sum(sizes), "bytes"]})
    gone = [] if found is None else sorted(_files(found) - set(request["files"]))
    commit = api.create_commit(
        name,
        [*additions, *(CommitOperationDelete(file) for file in gone)],
        commit_message=request["message"],
        # somebody else's commit in between is not to be undone
        parent_commit=None if found is None else found.sha,
    )
    private = request["private"] if found is None else bool(found.private)
    return {"repo_id": name, "url": f"{api.endpoint}/{name}", "commit": commit.oid, "private": private}


def _files(found: ModelInfo) -> set[str]:
    return {file.rfilename for file in found.siblings or ()} - {_MADE_BY_THE_HUB}


def why(error: BaseException) -> dict:
    """The failure as facts: the hub's status where it answered."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the client wraps what goes wrong in its threads
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    if isinstance(error, hub_errors.HfHubHTTPError):
        own = " ".join((error.server_message or "no reason given").split())[:200]
        return {"refused": "status", "status": error.response.status_code, "said": own}
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return {"refused": "offline"}
    if isinstance(error, (hub_errors.HTTPError, ConnectionError)):
        return {"refused": "network", "said": said}
    return {"refused": "other", "said": said}


def answer(request: dict, tell: Callable[[dict], None]) -> dict:
    """Look and, where the request names a folder, send it."""
    api, name = HfApi(token=request["token"]), None
    try:
        get_session().timeout = request["first_answer_seconds"]
        name, found = look(api, request)
        if request["folder"] is None:
            return {"repo_id": name}
        get_session().timeout = request["answer_seconds"]
        return send(api, name, found, request, tell)
    except Refused as refused:
        return refused.answer
    except Exception as error:  # a network fails in as many ways as it has parts
        return {"repo_id": name, **why(error)}
