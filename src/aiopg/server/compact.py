"""The process that makes a journal's snapshots: `python -m aiopg.server.compact DIRECTORY NUMBER REQUEST`.

Its server starts it (`_compactor`), when log NUMBER has been begun. REQUEST is JSON: the limits of the server and what
it says about itself. It ends with 0 when the snapshot is there and the old files are gone, with `DAMAGED` if the files
are not what a server wrote, and with 1 or a signal in any other case; what it has to say goes to standard error. It may
be killed at any moment.

It holds the whole state, and yields to its server: in the processor, but not so much that under load the log grows
faster than it is read; and in memory, where the kernel, if it has to, ends this process and not the server.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from functools import partial
from pathlib import Path

from aiopg._core.compaction import compact
from aiopg._core.limits import Limits
from aiopg.errors import JournalCorruptError, UsageError
from aiopg.server._compactor import DAMAGED
from aiopg.server._journal_files import compact_files, lock_compaction

NICE = 5
"""Against a busy server on one core this gets about a quarter; a replay costs less than a quarter of what the server
needed for the same commands."""


def main() -> int:
    """Make one snapshot; the exit code."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)  # a server's parent may have had it ignored
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
    directory, number, request = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    _yield_to_the_server()
    fold = partial(compact, limits=Limits(**request["limits"]), about=request["about"])
    lock = lock_compaction(directory)
    try:
        if _is_alone():
            return 1
        compact_files(directory, number, fold)
    except JournalCorruptError as error:
        print(error, file=sys.stderr)
        return DAMAGED
    except (OSError, UsageError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        os.close(lock)
    return 0


def _is_alone() -> bool:
    """Whether the server has ended: standard input is a pipe in which there is never anything but its end."""
    return bool(select.select([0], [], [], 0)[0])


def _yield_to_the_server() -> None:
    try:
        os.nice(NICE)
    except PermissionError:
        pass  # a sandbox, such as that of deploy/aiopg.service, may not let us
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass  # no Linux; the kernel will have to guess


if __name__ == "__main__":
    sys.exit(main())
