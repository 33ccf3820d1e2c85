"""Chance, time and identity of a simulated run: all that the product takes from the process it runs in."""

from __future__ import annotations

import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

from aiopg import processes
from aiopg._core import compaction
from aiopg.client import _client, _dial
from aiopg.processes import ProcessIdentity
from aiopg.server import _scribe
from tests.simulation.plan import Plan

__all__ = ["seeded"]

PID = 4711
HOST = "simulated"
NOBODY = ProcessIdentity(0, 0, 0, "")


def _nobody() -> ProcessIdentity:
    """Who the calling process is: the store is to believe of nobody that it is on its host."""
    return NOBODY


@contextmanager
def seeded(chance: Random, clock: Callable[[], float], plan: Plan) -> Iterator[None]:
    """For the duration of a run: bytes and pauses are drawn from `chance`, it is `clock()`, nobody logs, and what the
    product has constants for is as in the `plan`.
    """
    replacements: list[tuple[object, str, object]] = [
        (secrets, "token_bytes", chance.randbytes),
        (random, "uniform", chance.uniform),
        (os, "getpid", lambda: PID),
        (socket, "gethostname", lambda: HOST),
        (time, "monotonic", clock),
        (processes, "own_identity", _nobody),
        (_client, "own_identity", _nobody),
        (_dial, "Limits", lambda: plan.member_limits),
        (compaction, "ROTATE_BYTES", plan.rotate_bytes),
        (_scribe, "BACKLOG_BYTES", plan.backlog_bytes),
    ]
    disabled = logging.root.manager.disable
    with ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.enter_context(patch.object(owner, name, replacement))
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
