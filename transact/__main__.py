"""`python -m transact`: the library from the command line."""

import signal
import sys

from transact.cli import main


def _leave(number: int, frame) -> None:
    """End as an error would, so that what is half written and what is temporary goes."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # one that is ignored, as under nohup, stays so
            signal.signal(number, _leave)
    sys.exit(main())
