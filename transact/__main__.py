"""`python -m transact`: the library from the command line."""

import sys

from transact.cli import main

if __name__ == "__main__":
    sys.exit(main())
