"""The temporary folder of this process alone: what visitors bring and make lies in it and goes with the process.

However the process ends. Normally and after Ctrl-C the folder goes at the interpreter's exit, after SIGTERM and SIGHUP
by a program that the process becomes, as its own threads could write on. What is left of a process that was killed goes
at the next start: each folder holds a file that its process keeps locked for as long as it lives (flock, which the
system frees with the process, whatever its id becomes).

Imports nothing of gradio, which reads the places once, when it is imported.
"""

import atexit
import fcntl
import os
import shutil
import signal
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

PREFIX = "transact-explorer-"
"""What the names of these folders begin with."""
_LOCK = ".lock"
_GONE = ".gone"
_ATTEMPTS = 10
"""A thread that is still at work can make a folder anew while it is being removed."""
_REMOVE = """
import os, shutil, signal, sys
number, *folders = sys.argv[1:]
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
signal.signal(int(number), signal.SIG_DFL)
os.kill(os.getpid(), int(number))
os._exit(128 + int(number))  # the first process of a container is not ended by its own signal
"""
"""What a process becomes that a signal ends: it has no threads that could write on, and the same id and end."""
_SERVED = "GRADIO_TEMP_DIR"
"""The variable that says where gradio keeps uploads and downloads."""
_folders: list[Path] = []


def claim() -> None:
    """Let everything temporary lie in a folder of this process's own, and remove what dead processes left.

    That is for this process and those that it starts: `TMPDIR` and `GRADIO_TEMP_DIR` name the folder from here on,
    which is made where they pointed before. To be called in the main thread before gradio is imported. Raises `OSError`
    where no folder can be made.
    """
    own = _own_folder(Path(tempfile.gettempdir()))
    served = os.environ.get(_SERVED)
    os.environ[_SERVED] = str(own / "gradio" if served is None else _own_folder(Path(served)))
    os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    owner = os.getpid()
    atexit.register(_remove_own, owner)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # one that is ignored, as under nohup, stays so
            signal.signal(number, lambda signum, frame: _leave(signum, owner))


def remove_abandoned(place: Path) -> None:
    """Remove the folders in `place` that processes of this user left behind; those of living ones stay."""
    for folder in place.glob(f"{PREFIX}*"):
        try:
            lock = _lock_of_dead(folder)
        except OSError:  # another user's, no folder, a living process's, or gone by now
            continue
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _own_folder(place: Path) -> Path:
    """A new folder in `place`, locked before it has the name that others look for."""
    place.mkdir(parents=True, exist_ok=True)
    remove_abandoned(place)
    unlocked = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=place))
    lock = os.open(unlocked / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # open until the process ends
    with suppress(OSError):  # a file system without locks: others cannot lock it either, and leave it alone
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = unlocked.rename(place / unlocked.name.removeprefix("."))
    _folders.append(folder)
    return folder


def _lock_of_dead(folder: Path) -> int | None:
    """The lock of a folder whose process has ended, None where it has removed that already. Raises `OSError` else."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} is not a folder of this user")
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_own(owner: int) -> None:
    """Remove this process's folders; a copy of it, as `os.fork` makes, leaves its parent's alone."""
    if os.getpid() != owner:
        return
    for folder in _folders:
        gone = folder.with_name(folder.name + _GONE)
        for _ in range(_ATTEMPTS):
            with suppress(OSError):  # there is none any more, or what was renamed before is not quite gone
                folder.rename(gone)  # what is still at work finds no place to write to
            shutil.rmtree(gone, ignore_errors=True)
            if not folder.exists() and not gone.exists():
                break


def _leave(signum: int, owner: int) -> None:
    """End as the signal would have ended the process, without its children and its folders."""
    folders: list[str] = []
    if os.getpid() == owner:  # a copy of it leaves its parent's alone
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        folders = [str(folder) for folder in _folders]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _REMOVE, str(signum), *folders])
