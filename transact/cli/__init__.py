"""The command line: a thin layer over the library's public functions.

    catalogue    the table of commands
    options      every option, and which of them go together
    files        what is read and written
    steps        from options to the library's values
    commands     calls of the library
    summaries    results as tables and sentences
    app          the program that shows the page

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 refused with one
sentence (a `TransactError`), 2 wrong usage, 130 stopped with Ctrl-C.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from transact.cli.bars import progress_bars
from transact.cli.catalogue import APP, COMMANDS, Command
from transact.errors import TransactError
from transact.runtime.distributed import is_main

_PROGRAM = "python -m transact"
_DESCRIPTION = """\
Look into a language model's redundancy and cut it away.

plan decides what goes, prune cuts and measures it, recover cuts in shots and trains in between, evaluate
measures any model, tasks runs standard benchmarks on it, score shows what a plan is made from, export writes a
planned model for other software, push puts it on the Hugging Face hub, app starts the page. Each --help shows
an example."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; argparse itself leaves by `SystemExit` (2, or 0 for help)."""
    parser, parsers = _parsers()
    arguments = parser.parse_args(argv)
    command = next(command for command in (*COMMANDS, APP) if command.name == arguments.command)
    problem = command.problem(arguments)
    if problem is not None:
        parsers[command.name].error(problem)
    try:
        # of several processes only the first one reports
        with progress_bars(quiet=vars(arguments).get("quiet", True) or os.environ.get("RANK", "0") != "0") as meter:
            answer = command.run(arguments, meter)
    except TransactError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    if not is_main():
        return 0
    sys.stdout.write((json.dumps(answer.values, indent=2) if arguments.json else "\n\n".join(answer.parts)) + "\n")
    return 0


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The whole parser, and each command's own."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(_PROGRAM, description=_DESCRIPTION, formatter_class=shape, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    return parser, {command.name: _parser(commands, command) for command in (*COMMANDS, APP)}


def _parser(commands, command: Command) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        command.name,
        help=command.summary,
        description=command.description,
        epilog=f"example:\n{command.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for group in command.groups:
        section = parser.add_argument_group(group.title, group.description)
        for option in group.options:
            section.add_argument(option.flag, help=option.help, **option.settings)
    return parser
