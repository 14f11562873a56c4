"""Every number that the command line takes, in turn one that cannot be: a sentence, or the command's own usage."""

from pathlib import Path

import pytest

import transact as ta
from tests import peaks
from transact.cli import main, options
from transact.cli.catalogue import COMMANDS

WRONG = ("1000000000000", "1e12", "-1", "2.5", "nan", "inf", "", "x", "9" * 6000, "1,2,x", "[1]")
MOST_BYTES = 300_000_000
TARGET = ("--attention-sparsity", "0.25", "--mlp-sparsity", "0.5")
SOUND = {
    "score": (),
    "plan": TARGET,
    "prune": (*TARGET, "--evaluation", "{text}"),
    "recover": (*TARGET, "--evaluation", "{text}", "--recovery-tokens", "100", "--shots", "1", "--batch-size", "1"),
    "evaluate": ("--evaluation", "{text}"),
}
NOT_NUMBERS = (Path, options.names)


def numbers(command) -> list[str]:
    """The options of a command that take a number."""
    every = [option for group in command.groups for option in group.options]
    return [each.flag for each in every if each.settings.get("type") not in (None, *NOT_NUMBERS)]


def enough(*arguments, **named):
    raise ta.InvalidText("This is read, and enough.")


@pytest.mark.slow
@pytest.mark.parametrize("name", SOUND)
def test_every_number(name, tmp_path, monkeypatch, capsys):
    for work in ("observe", "recover", "evaluate", "prune"):
        monkeypatch.setattr(ta, work, enough)
    loaded = ta.load("bundled")
    monkeypatch.setattr(ta, "load", lambda *arguments, **named: loaded)
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "The fox saw the cheese."}\n{"text": "The crow sang."}\n', encoding="utf-8")
    (command,) = [command for command in COMMANDS if command.name == name]
    flags = numbers(command)
    assert len(flags) >= 1
    calibration = () if name == "evaluate" else ("--calibration", str(text), "--output", str(tmp_path / "out"))
    sound = [part.format(text=text) for part in SOUND[name]]
    with peaks.growth() as grown:
        for flag in flags:
            for wrong in WRONG:
                line = [name, "--model", "bundled", "--quiet", *calibration, *sound, f"{flag}={wrong}"]
                try:
                    code = main(line)
                except SystemExit as error:
                    code = error.code
                said = capsys.readouterr().err
                assert code in (0, 1, 2), (flag, wrong)
                assert code != 1 or (said.count("\n") == 1 and len(said) < 1000), (flag, wrong, said)
                assert "Traceback" not in said
        assert grown() < MOST_BYTES
