"""The page from the command line. The library does not import the app: it starts it as a program of its own."""

import os
import sys
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from transact.cli.bars import Meter
from transact.cli.options import Option
from transact.errors import InvalidOption

OPTIONS = (
    Option(
        "--host",
        "the address to listen on; 0.0.0.0 lets other machines reach the page, which SECURITY.md is about (default: "
        "GRADIO_SERVER_NAME, or 127.0.0.1)",
        {"metavar": "ADDRESS"},
    ),
    Option("--port", "the port to listen on (default: GRADIO_SERVER_PORT, or 7860)", {"type": int, "metavar": "N"}),
)
_NEEDED = ("gradio", "plotly")
_BESIDE = Path(__file__).resolve().parents[2]
"""The folder that holds both packages: site-packages, or a clone."""
_START = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('ui', None, '__main__', True)"
"""Run this way, a folder `ui` in the current folder is not imported."""


def start(arguments: Namespace, meter: Meter) -> NoReturn:
    """Replace this process by the app; raises `InvalidOption` where what it needs is not installed.

    A new interpreter, since torch and gradio read some of the app's variables when they are imported.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing or not (_BESIDE / "ui").is_dir():
        raise InvalidOption(
            f"The app needs {' and '.join(missing or ['the package ui'])}, missing here. Run "
            "pip install 'transact-explorer[app]', or in a clone pip install '.[app]'."
        )
    variables = {"GRADIO_SERVER_NAME": arguments.host, "GRADIO_SERVER_PORT": arguments.port}
    environment = os.environ | {name: str(value) for name, value in variables.items() if value is not None}
    os.execve(sys.executable, [sys.executable, "-P", "-c", _START, str(_BESIDE)], environment)
