"""Shell lines that call the command line, run in this process: a process of its own takes seconds to import torch."""

import subprocess
from pathlib import Path

import pytest

from transact.cli import main


def run(lines: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """What `lines` print where `folder` is the current one; a real bash reads the words and does the rest of them."""
    words = subprocess.run(
        ["bash", "-c", lines.replace("python -m transact", r"printf '%s\0'")],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    monkeypatch.chdir(folder)
    capsys.readouterr()
    code, captured = main(words[:-1]), capsys.readouterr()
    assert code == 0, captured.err
    return captured.out
