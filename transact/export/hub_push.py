"""A checkpoint on the Hugging Face hub: private by default, and never silently over existing files."""

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from transact.errors import PushRefused
from transact.export import push_script
from transact.progress import NO_PROGRESS, Progress
from transact.runtime import isolated_process
from transact.runtime.isolated_process import IsolatedProcessFailed

_FIRST_ANSWER_SECONDS, _ANSWER_SECONDS = 10.0, 120.0
"""How long the hub may take for its first answer, and between answers during an upload."""
_SECONDS = 24 * 3600.0
_MESSAGE = "Upload a model pruned with TransAct Explorer"


@dataclass(frozen=True)
class Pushed:
    """Where the model is: `repo_id` with its owner, `url` of its page, the `commit`, and whether it is private."""

    repo_id: str
    url: str
    commit: str
    private: bool


def check_push(
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = True,
    overwrite: bool = False,
    progress: Progress = NO_PROGRESS,
) -> str:
    """Ask the hub whether `push` would be allowed, before the work; returns the repository's name with its owner.

    Raises `PushRefused` as `push` does, and what `progress` raises. Nothing is changed.
    """
    request = _request(repo_id, token, private, overwrite)
    return _answer(request, progress)["repo_id"]


def push(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = True,
    overwrite: bool = False,
    progress: Progress = NO_PROGRESS,
) -> Pushed:
    """Put the checkpoint that `save` wrote in `folder` into the model repository `repo_id`, in one commit.

    Its files go there, not its sub-folders or hidden files. A repository that does not exist is created, `private` or
    public; files of an existing one are replaced only with `overwrite`, and stay in its history. `repo_id` without
    an owner is one of the token's own. `token`: that of this machine (HF_TOKEN, or `hf auth login`) where it is None.

    Raises `PushRefused` with the reason: no token or a wrong one, existing files, a public repository with `private`,
    a hub that does not answer. Until the commit nothing in an existing repository changes; a
    new one may stay behind empty. Whatever `progress` raises stops the work and is raised.
    """
    request = _request(repo_id, token, private, overwrite)
    folder = Path(folder).expanduser()
    return Pushed(**_answer({**request, "folder": str(folder.resolve()), "files": _files(folder)}, progress))


def _request(repo_id: str, token: str | None, private: bool, overwrite: bool) -> dict:
    repo_id = repo_id.strip()
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise PushRefused(
            f"{repo_id[:100]!r} cannot name a repository. Give a name such as me/small-model: letters, digits, '-', "
            "'_' and '.', at most 96 of them."
        ) from None
    token = token or get_token()
    if not token:
        raise PushRefused(
            "Nobody is signed in to the hub here. Run `hf auth login`, or set HF_TOKEN, with a token that may write; "
            "then push again."
        )
    return {
        "repo_id": repo_id, "token": token, "private": private, "overwrite": overwrite, "message": _MESSAGE,
        "folder": None, "files": [],
        "first_answer_seconds": _FIRST_ANSWER_SECONDS, "answer_seconds": _ANSWER_SECONDS,
    }  # fmt: skip


def _files(folder: Path) -> list[str]:
    """The names of a checkpoint's files, the card first."""
    try:
        names = [file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    except (OSError, ValueError) as error:
        raise PushRefused(f"{folder} cannot be read ({error}). Give a folder that save or prune wrote.") from None
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise PushRefused(f"{folder} holds no checkpoint (config.json and safetensors). Give a folder that save wrote.")
    return sorted(names, key=lambda name: (name != "README.md", name))


def _answer(request: dict, progress: Progress) -> dict:
    """The hub's answer; raises `PushRefused` with one sentence for each kind of failure."""
    environment = {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    try:
        answer = isolated_process.run(
            Path(push_script.__file__), request, progress, seconds=_SECONDS, environment=environment
        )
    except IsolatedProcessFailed as error:
        answer = {"refused": "other", "message": str(error)}
    if "refused" not in answer:
        return answer
    raise PushRefused(_sentence(answer, answer.get("repo_id") or request["repo_id"]).replace(request["token"], "…"))


def _sentence(answer: dict, repo_id: str) -> str:
    match answer["refused"]:
        case "token":
            return (
                "The hub does not accept the token. Sign in again (in a shell: `hf auth login`, or set HF_TOKEN) with "
                "one that may write."
            )
        case "exists":
            return (
                f"{repo_id} exists and holds {answer['files']} files. Ask for them to be replaced (“Replace what is "
                "there”, overwrite=True, --overwrite), or choose another name."
            )
        case "public":
            return (
                f"{repo_id} exists and is public, but a private one was asked for. Choose another name, or agree to a "
                "public one."
            )
        case "taken":
            return f"{repo_id} exists, but this token may not look into it. Choose another name."
        case "status" if answer["status"] in (401, 403, 404):
            return (
                f"This token may not write to {repo_id} (status {answer['status']}). Choose a name of your own, or use "
                "a token with write access."
            )
        case "status" if answer["status"] == 412:
            return f"Somebody has changed {repo_id} meanwhile, so nothing was replaced. Look at it, then push again."
        case "status":
            return (
                f"The hub answered for {repo_id} with status {answer['status']} ({answer['message']}). Nothing was "
                "replaced; try again later."
            )
        case "offline":
            return "Offline mode is on (HF_HUB_OFFLINE), so nothing can be pushed. Switch it off, then push again."
        case "network":
            return (
                f"The hub could not be reached, or stopped answering ({answer['message']}). Check the connection, then "
                "push again."
            )
        case _:
            return f"The push to {repo_id} was not completed ({answer['message']}). Try again."
