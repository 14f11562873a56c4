"""`python -m transact`, and the program `transact` of an installed package: the library from the command line."""

import signal
import sys

from transact.cli import main


def _leave(number: int, frame) -> None:
    """End as an error would, so that what is half written and what is temporary goes."""
    raise SystemExit(128 + number)


def run() -> None:
    """Run the command line of this process and leave with its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # one that is ignored, as under nohup, stays so
            signal.signal(number, _leave)
    sys.exit(main())


if __name__ == "__main__":
    run()
