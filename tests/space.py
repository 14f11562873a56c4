"""What is pushed to a Space, put together and tried in an environment that has nothing else; run by `make space`.

A Space installs Gradio as the header of README.md says, `spaces` and requirements.txt, and runs app.py. So does this,
outside the checkout, with the variables that a Space sets; then a client goes through a plan and a cut.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
PUSHED = ("README.md", "app.py", "requirements.txt", "ui", "transact", "assets")
COLD_START_SECONDS = 30.0
_LARGEST_FILE, _LARGEST_ALL = 10_000_000, 1_000_000_000
"""Bytes. The hub keeps larger files outside of git, and a Space of over a gigabyte is not built without asking."""
_COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
_DESCRIPTION = 60
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Contents:
    """What lies in an assembled folder: paths with their sizes in bytes, and those that are not text."""

    sizes: dict[str, int]
    binary: tuple[str, ...]

    def __str__(self) -> str:
        largest = max(self.sizes, key=self.sizes.get)
        return (
            f"{len(self.sizes)} files, {sum(self.sizes.values()) / 1e6:.1f} MB; the largest is {largest} "
            f"({self.sizes[largest] / 1e6:.1f} MB). {len(self.binary)} are binary, which the hub takes from git only "
            f"through LFS or Xet: push the folder with `hf upload … --repo-type space`, which sees to it, or say first "
            f"`git lfs track {' '.join(sorted({f'*{Path(name).suffix}' for name in self.binary}))}`."
        )


def assemble(folder: Path) -> Contents:
    """Put exactly what is pushed into `folder`, which must not be there yet or is replaced.

    Only files that git knows are taken. Raises `ValueError` where the header is none that a Space takes, or the hub's
    limits are passed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", *PUSHED], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    contents = Contents(sizes, tuple(sorted(name for name in sizes if _is_binary(folder / name))))
    _check(folder, contents)
    return contents


def header(folder: Path) -> dict:
    """The Space's settings at the head of its README.md."""
    _, block, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(block)


def _check(folder: Path, contents: Contents) -> None:
    said = header(folder)
    wrong = [
        f"{name} is {said.get(name)!r}"
        for name, fits in (
            ("sdk", said.get("sdk") == "gradio"),
            ("app_file", (folder / str(said.get("app_file"))).is_file()),
            ("colorFrom", said.get("colorFrom") in _COLOURS),
            ("colorTo", said.get("colorTo") in _COLOURS),
            ("short_description", 0 < len(said.get("short_description", "")) <= _DESCRIPTION),
            ("python_version", str(said.get("python_version")) in ("3.11", "3.12")),
        )
        if not fits
    ]
    large = [name for name, size in contents.sizes.items() if size > _LARGEST_FILE]
    if wrong or large or sum(contents.sizes.values()) > _LARGEST_ALL:
        raise ValueError(f"no Space takes this: {', '.join([*wrong, *large]) or 'too large in all'}")


def _is_binary(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
        return False
    except UnicodeDecodeError:
        return True


def environment(venv: Path, space: Path, index: str, torch: str) -> Path:
    """A fresh environment as a Space makes it; its python. PyTorch comes first, from `index` where one is named."""
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"

    def install(*what: str) -> None:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *what], check=True)

    install(*(["--index-url", index] if index else []), torch)
    gradio = f"gradio[oauth]=={header(space)['sdk_version']}"
    install(gradio, "spaces", "--requirement", str(space / "requirements.txt"))  # the first two come from the Space
    return python


@contextmanager
def started(python: Path, space: Path, home: Path) -> Iterator[tuple[str, psutil.Process, float]]:
    """The Space's address, its process, and the seconds until the first whole page; ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home / "hub"), "LANG": "C.UTF-8",
        "SYSTEM": "spaces", "SPACE_ID": "someone/transact-explorer", "SPACE_HOST": "someone-transact-explorer.hf.space",
        "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": str(port), "GRADIO_ALLOW_FLAGGING": "never",
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    url, log = f"http://127.0.0.1:{port}/", home / "space.log"
    began = time.monotonic()
    with log.open("w") as output:
        app = psutil.Popen(
            [str(python), header(space)["app_file"]], cwd=space, env=settings, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            wait_for_maps(url, app, log)
            yield url, app, time.monotonic() - began
        finally:
            children = app.children(recursive=True) if app.poll() is None else []
            app.terminate()
            app.wait(20)
            _, left = psutil.wait_procs(children, timeout=5)
            if left:
                raise RuntimeError(f"the app left {left} behind")


def wait_for_maps(url: str, app: psutil.Popen, log: Path) -> None:
    """Until the page holds the bundled model's stored scores."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if app.poll() is not None:
            raise RuntimeError(f"the app ended with status {app.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}config", timeout=5) as answer:
                parts = {part["props"].get("elem_id"): part["props"] for part in json.load(answer)["components"]}
        except OSError:
            time.sleep(0.2)
            continue
        urllib.request.urlopen(url, timeout=5).close()
        if not parts["heads-plot"].get("value"):
            raise RuntimeError(f"the page opens without the bundled model's scores:\n{log.read_text()}")
        return
    raise RuntimeError(f"the app did not answer within {_START_SECONDS:.0f} s:\n{log.read_text()}")


def tried(url: str) -> dict:
    """A plan and a cut through the public endpoints; the summary of what was cut."""
    from gradio_client import Client

    client = Client(url, verbose=False)
    plan = client.predict(attention_sparsity=0.25, mlp_sparsity=0.5, allocation="uniform", api_name="/plan")
    pruned = client.predict(repair="none", api_name="/prune")
    if pruned["after"] != plan["after"] or pruned["after"]["parameters"] >= pruned["before"]["parameters"]:
        raise RuntimeError(f"planned was {plan['after']}, cut was {pruned['after']}")
    return pruned


def reached(process: psutil.Process, allowed: Path) -> list[str]:
    """Files of the checkout that the app holds or has mapped, its environment aside; there should be none."""
    held = [file.path for file in process.open_files()] + [map.path for map in process.memory_maps()]
    return sorted({path for path in held if Path(path).is_relative_to(ROOT) and not Path(path).is_relative_to(allowed)})


def main() -> None:
    """Assemble, install, start, try, stop; the exit status says whether all of it went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--torch", default="torch")
    parser.add_argument("--torch-index", default="")
    chosen = parser.parse_args()
    space, venv = chosen.build / "space", chosen.build / "space-environment"
    contents = assemble(space)
    print(f"{space}: {contents}")
    python = environment(venv, space, chosen.torch_index, chosen.torch)
    with tempfile.TemporaryDirectory(prefix="transact-space-") as place:
        copy, home = Path(place, "app"), Path(place, "home")
        shutil.copytree(space, copy)  # so that nothing is found by its place in the checkout
        home.mkdir()
        with started(python, copy, home) as (url, process, seconds):
            pruned = tried(url)
            strayed = reached(process, venv)
    print(
        f"First page {seconds:.1f} s after the start, with the bundled model's scores (limit {COLD_START_SECONDS:.0f} "
        f"s). Planned and cut: {pruned['before']['parameters']:,} -> {pruned['after']['parameters']:,} parameters."
    )
    if strayed or seconds > COLD_START_SECONDS:
        sys.exit(f"not ready: {'too slow' if not strayed else f'it reads {strayed[0]} of the checkout'}")


if __name__ == "__main__":
    main()
