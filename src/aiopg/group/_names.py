"""The name of one's own host, to listen on, which comes to be while one waits: a pod runs before it has its name.

Who looks for a store by its host's name tries again by itself, see `client`.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import socket

from aiopg.address import NAMED_LATER, Address
from aiopg.errors import StoreUnreachableError

__all__ = ["await_name"]

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


async def await_name(address: Address, deadline: float) -> None:
    """In a pod, return when the host's name resolves; else at once: there an unknown name is a mistake, and is told.

    Raises `StoreUnreachableError` at `deadline` (loop time).
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return
    pause, met = FIRST_PAUSE, "no answer in time"
    try:
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            while True:
                try:
                    await asyncio.get_running_loop().getaddrinfo(address.host, address.port)
                except socket.gaierror as error:
                    if error.errno not in NAMED_LATER:
                        return
                    met = str(error.strerror)
                else:
                    return
                await asyncio.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, LONGEST_PAUSE)
    except TimeoutError as error:
        raise StoreUnreachableError(str(address), f"the host name does not resolve: {met}") from error
