"""The package built as a wheel, installed apart from the checkout and tried; run by `make wheel`.

The fresh environment finds what the package depends on in the one that runs this; only the package itself is installed.
Then the three things that an installed package promises are done in an empty folder: `import transact`, `transact
prune` on the bundled model, and `transact app` up to a plan and a cut by a client.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import psutil

from tests.space import tried, wait_for_maps

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("assets/screenshots/", "assets/quality.svg", "assets/model/stories.json", ".py", ".csv")
"""How the names of those files of `assets` begin or end that no wheel holds: what made the bundled model, and pictures
of the documentation."""
PRUNE = (
    "prune", "--model", "bundled", "--calibration", "assets/samples/mixed.jsonl", "--num-samples", "8",
    "--attention-sparsity", "0.25", "--mlp-sparsity", "0.5", "--no-proof", "--output", "pruned", "--json",
)  # fmt: skip
WHERE = (
    "import json, transact as ta, ui; print(json.dumps([ta.__file__, ui.__file__, str(ta.SAMPLES), ta.__version__]))"
)


def build(folder: Path) -> Path:
    """Build the wheel into `folder`, from the files that git knows, as a clone has them; returns its path."""
    source = folder / "source"
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> set[str]:
    """The paths of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def expected() -> set[str]:
    """The paths that a wheel has to hold: both packages, and the assets that they read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "transact", "ui", "assets"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = set(filter(None, listed.stdout.split("\0")))
    left_out = {name for name in names if name.startswith("assets/") and _is_left_out(name)}
    return {_installed(name) for name in names - left_out}


def install(wheel: Path, venv: Path) -> Path:
    """A fresh environment with the wheel, and the packages of this one behind it; its folder of programs."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", str(wheel)],
        check=True,
    )
    (site,) = venv.glob("lib/python*/site-packages")
    behind = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("".join(f"{place}\n" for place in behind))
    return venv / "bin"


def imported(programs: Path, folder: Path) -> dict[str, str]:
    """Where an interpreter that starts in `folder` finds the packages and samples, and the version."""
    answer = _run([programs / "python", "-c", WHERE], folder)
    return dict(zip(("transact", "ui", "samples", "version"), json.loads(answer), strict=True))


def pruned(programs: Path, folder: Path) -> dict:
    """What `transact prune` answers on the bundled model; the checkpoint is in `folder`/pruned."""
    return json.loads(_run([programs / "transact", *PRUNE], folder))


def answered(programs: Path, folder: Path) -> dict:
    """Start `transact app` in `folder` and have a client plan and cut; the summary of the cut.

    Raises `RuntimeError` with the app's log if it does not start, or if it reads anything of the checkout.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "app.log"
    with log.open("w") as output:
        app = psutil.Popen(
            [str(programs / "transact"), "app", "--port", str(port)],
            cwd=folder, env=_environment(folder), stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_for_maps(url, app, log)
            summary = tried(url)
            strayed = _of_the_checkout(app)
        finally:
            app.terminate()
            app.wait(60)
    if strayed or f"listens on {url}" not in log.read_text():
        raise RuntimeError(f"it read {strayed} of the checkout, or did not say where it listens:\n{log.read_text()}")
    return summary


def _installed(name: str) -> str:
    return f"transact/_{name}" if name.startswith("assets/") else name


def _is_left_out(name: str) -> bool:
    return name.startswith(LEFT_OUT) or name.endswith(LEFT_OUT)


def _environment(folder: Path) -> dict[str, str]:
    """That of a user who has neither a hub nor anything of this project in a variable."""
    return {
        "PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"), "TMPDIR": str(folder),
    }  # fmt: skip


def _run(line: list, folder: Path) -> str:
    done = subprocess.run(
        [str(word) for word in line], cwd=folder, env=_environment(folder), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{line[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def _of_the_checkout(app: psutil.Process) -> list[str]:
    """Files of the checkout that a process holds or has mapped, those of its environment aside."""
    held = {file.path for file in app.open_files()} | {map.path for map in app.memory_maps()}
    environment = Path(sys.prefix).resolve()
    return sorted(
        path for path in held if Path(path).is_relative_to(ROOT) and not Path(path).is_relative_to(environment)
    )


def main() -> None:
    """Build, install, try; the exit status says whether all of it went well."""
    wheel = build(ROOT / "build" / "wheel")
    print(f"{wheel.relative_to(ROOT)}: {len(contents(wheel))} files, {wheel.stat().st_size / 1e6:.1f} MB")
    if contents_missing := expected() - contents(wheel):
        sys.exit(f"not in the wheel: {', '.join(sorted(contents_missing))}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="transact-wheel-") as place:
        folder = Path(place, "empty")
        folder.mkdir()
        programs = install(wheel, Path(place, "environment"))
        print(f"import transact: version {imported(programs, folder)['version']}")
        plan = pruned(programs, folder)["plan"]
        print(f"transact prune: {plan['before']['parameters']:,} -> {plan['after']['parameters']:,} parameters")
        after = answered(programs, folder)["after"]
        print(f"transact app: cut to {after['parameters']:,} parameters; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
