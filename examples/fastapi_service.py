"""Web servers that agree on a model version, and serve only while all of them are there.

It needs fastapi and uvicorn. Both servers at once, on ports 8000 and 8001::

    aiopg run -n 2 -- python examples/fastapi_service.py

or each in a terminal, in any order, with RANK=0 and RANK=1, which models it has, and the port to serve on::

    export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29400
    RANK=0 MODEL_VERSIONS="6 7" python examples/fastapi_service.py 8000

``curl -i 127.0.0.1:8000/readyz`` says 503 and why until both are there, and again when one is gone. In between
``curl -d hello 127.0.0.1:8000/generate`` is answered by the newest version that both have. Ctrl-C and SIGTERM drain:
not ready any more, what has begun is finished, the group is left, and then the server ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request

from aiopg import AiopgError, AsyncStatelessGroup

log = logging.getLogger("uvicorn.error")  # where uvicorn itself says what it does


class Replica:
    """This server's part in the service."""

    def __init__(self, versions: set[int]) -> None:
        self._versions = versions
        self._agreed: int | None = None
        self._trouble = "waiting for the other servers"
        self._draining = False
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def version(self) -> int:
        """The version that all serve. Raises the 503 that says why there is none."""
        if self._draining or self._agreed is None:
            raise HTTPException(503, "draining" if self._draining else self._trouble)
        return self._agreed

    async def serving(self) -> AsyncIterator[int]:
        """The version for one request, which counts as begun until it is answered."""
        version = self.version()
        self._requests += 1
        self._idle.clear()
        try:
            yield version
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def drain(self, seconds: float) -> None:
        """Take no more requests, and wait until those that have begun are answered, but not for ever."""
        self._draining = True
        log.info("draining: %d requests to finish", self._requests)
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("gave up on %d requests", self._requests)

    async def take_part(self) -> None:
        """Be ready while all servers are there; when one is gone, wait until it is there again."""
        while True:
            try:
                group = await AsyncStatelessGroup.from_env()
                try:
                    await self._be_one_of(group)
                finally:
                    self._agreed = None
                    await group.close()
            except AiopgError as error:
                self._trouble = str(error)
            log.info("not ready: %s", self._trouble)
            await asyncio.sleep(0.1)

    async def _be_one_of(self, group: AsyncStatelessGroup) -> None:
        offers = await group.all_gather(self._versions)
        agreed = max(set.intersection(*offers), default=None)
        if agreed is None:
            self._trouble = f"no version is everywhere: {offers}"
            log.error("not ready: %s", self._trouble)
        else:
            # Here is where the model would be loaded; behind the barrier all have it.
            await group.barrier(timeout=600)
            self._agreed = agreed
            log.info("ready: all %d servers have version %d", group.world_size, agreed)
        async with aclosing(group.events()) as events:
            async for event in events:
                if event.what in ("left", "lost", "aborted"):
                    self._trouble = f"rank {event.rank} {event.what}: {event.text}"
                    return


replica = Replica({int(version) for version in os.environ.get("MODEL_VERSIONS", "1 2").split()})


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Take part from start to end. In the background: uvicorn listens, and /readyz answers, from the yield on."""
    async with asyncio.TaskGroup() as tasks:
        part = tasks.create_task(replica.take_part())
        yield
        part.cancel()
    log.info("left the group")


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> str:
    """Whether the process lives: it need not be restarted because a peer is away."""
    return "alive"


@app.get("/readyz")
async def readyz() -> dict[str, int]:
    """Whether requests may be sent here."""
    return {"version": replica.version()}


@app.post("/generate")
async def generate(request: Request, version: Annotated[int, Depends(replica.serving)]) -> dict[str, int | str]:
    """The model's work."""
    prompt = await request.body()
    return {"version": version, "text": prompt.decode().upper()}


class Server(uvicorn.Server):
    """uvicorn that drains while it still listens, so that /readyz can say so."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What uvicorn does when a signal has come."""
        await replica.drain(seconds=10)
        await super().shutdown(sockets)


if __name__ == "__main__":
    if "RANK" not in os.environ:
        sys.exit(__doc__)
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000 + int(os.environ["RANK"])
    for signum in (signal.SIGINT, signal.SIGTERM):
        # When it has stopped, uvicorn raises the signal that stopped it once more: here that is a good end.
        signal.signal(signum, lambda *_: sys.exit(0))
    Server(uvicorn.Config(app, port=port)).run()
