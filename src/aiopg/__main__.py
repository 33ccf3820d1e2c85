"""`python -m aiopg` is the command `aiopg`."""

import sys

from aiopg.cli import main

if __name__ == "__main__":
    sys.exit(main())
