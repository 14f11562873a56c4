"""What a host sets: who can reach this page, its owner alone or others, what these may name, how many are remembered.

Imports nothing, so that `ui/__main__.py` can ask before anything else is loaded.
"""

import os
from pathlib import Path

LOCAL_ROOTS = "TRANSACT_LOCAL_ROOTS"
"""The variable that lists folders below which visitors may name models and datasets, apart as in PATH."""
STREAM = "TRANSACT_STREAM"
"""The variable that says (1 or 0) whether models larger than memory are streamed from their files."""
SESSIONS = "TRANSACT_SESSIONS"
"""The variable that says how many visitors' work is kept at a time."""
GALLERY = "TRANSACT_GALLERY"
"""The variable that lists folders with files of the host's own gallery, apart as in PATH."""
TRAINED_TOKENS = "TRANSACT_TRAINED_TOKENS"
"""The variable that says how many tokens one recovery may train on."""
TASKS = "TRANSACT_TASKS"
"""The variable that names a folder with task files for lm_eval, which visitors may run."""
_SESSIONS = 200
_TRAINED_TOKENS, _TRAINED_TOKENS_OF_A_STRANGER = 5_000_000, 250_000
"""On two cores the bundled model takes an hour and three quarters for the first, and five minutes for the second."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_space() -> bool:
    """Whether this runs as a Hugging Face Space."""
    return os.environ.get("SYSTEM") == "spaces" or "SPACE_ID" in os.environ


def is_public() -> bool:
    """Whether others than the owner of the machine can reach the page."""
    return is_space() or os.environ.get("GRADIO_SERVER_NAME", _LOOPBACK[0]) not in _LOOPBACK


def may_stream() -> bool:
    """Whether models larger than memory are streamed layer by layer: that may take hours, in which others wait.

    So only where all visitors are the owner's own, unless TRANSACT_STREAM=1 says that it may be done for everybody.
    """
    said = os.environ.get(STREAM)
    return not is_public() if said is None else said == "1"


def gallery_folders() -> list[Path]:
    """The folders whose gallery files are offered beside those that come with the app."""
    return [Path(folder).expanduser() for folder in os.environ.get(GALLERY, "").split(os.pathsep) if folder]


def max_sessions() -> int:
    """How many visitors' work is kept; the one who was idle longest goes first. Raises `ValueError` for no number."""
    return _number(SESSIONS, _SESSIONS, least=1, of="visitors")


def max_trained_tokens() -> int:
    """How many tokens one recovery may train on, fewer where others can reach the page: they wait for it.

    Raises `ValueError` for no number.
    """
    standing = _TRAINED_TOKENS_OF_A_STRANGER if is_public() else _TRAINED_TOKENS
    return _number(TRAINED_TOKENS, standing, least=0, of="tokens")


def tasks_folder() -> Path | None:
    """Where the host keeps task files for lm_eval; None where it names no folder."""
    named = os.environ.get(TASKS, "").strip()
    return Path(named).expanduser() if named else None


def _number(variable: str, standing: int, *, least: int, of: str) -> int:
    """What a variable says, or `standing` where it is not set; numbers of more than 18 digits count nothing here."""
    said = os.environ.get(variable, "").strip() or str(standing)
    if not said.isascii() or not said.isdigit() or len(said) > 18 or int(said) < least:
        raise ValueError(f"{variable} is {said[:80]!r}; give a number of {of}, at least {least}.")
    return int(said)


def may_name(place: str) -> bool:
    """Whether a visitor may name `place` where it is a path: all paths on one's own machine, elsewhere those allowed.

    A name that is no path, such as a hub id, may always be named.
    """
    roots = os.environ.get(LOCAL_ROOTS)
    if roots is None and not is_public():
        return True
    allowed = [Path(root).expanduser().resolve() for root in (roots or "").split(os.pathsep) if root]
    try:
        path = Path(place).expanduser()
        if not place.startswith((".", "/", "~")) and not path.exists():
            return True
        path = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown ~user, a NUL: nothing on this disk
        return False
    return _lies_in(path, allowed) and not _leads_out(path, allowed)


def _lies_in(path: Path, allowed: list[Path]) -> bool:
    return any(path.is_relative_to(root) for root in allowed)


def _leads_out(folder: Path, allowed: list[Path]) -> bool:
    """Whether a link anywhere below a folder leads out of those allowed: a file that it names would be read."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(place, name)
            try:
                if entry.is_symlink() and not _lies_in(entry.resolve(), allowed):
                    return True
            except (OSError, RuntimeError):  # links that go round in circles
                return True
    return False


def refusal(place: str) -> str:
    """The sentence for what `may_name` says no to; it does not say whether there is such a path."""
    return (
        f"“{place[:200]}” names a place on the machine that runs this page, which visitors may not read. Give a hub id "
        f"instead; whoever runs the page can allow folders ({LOCAL_ROOTS})."
    )
