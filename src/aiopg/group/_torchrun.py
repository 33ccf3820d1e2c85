"""How a group forms where torchrun's agent holds the port: see `_agent_store` for why this is safe."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

from aiopg.address import Address
from aiopg.errors import AiopgError, GroupTimeoutError, RankConflictError
from aiopg.group._agent_store import AgentStore, Publication
from aiopg.group._rendezvous import Search, join_timed_out
from aiopg.server.listen import address_of, bind

__all__ = ["form_by_agent"]

logger = logging.getLogger("aiopg.group")

SECOND_THOUGHT_SECONDS = 5.0
"""A store that refuses this rank may be one that the last life of the workers left: so long we wait for a newer one."""


class Closable(Protocol):
    """A group."""

    async def close(self) -> None:
        """Leave it."""


G = TypeVar("G", bound=Closable)

Form: TypeAlias = Callable[[Address, socket.socket | None], Coroutine[Any, Any, G]]
"""Form the group at an address, by the deadline; rank 0 on this listening socket, which is taken over."""


async def form_by_agent(host: str, port: int, search: Search, world_size: int, takeover: bool, form: Form[G]) -> G:
    """Form a group by way of the agent's store at `host:port`.

    Raises what `form` raises, and:
        GroupTimeoutError: rank 0 had not said where it is by the deadline, or the agent's store did not answer.
        RankConflictError: another process says that it is rank 0 of this group.
        StoreUnreachableError: the agent's store is not there, or `host` is no address of this host (rank 0).
        ImportError: torch is not installed.
    """
    started = asyncio.get_running_loop().time()
    with AgentStore(host, port, search.group) as agent:
        try:
            async with asyncio.timeout_at(None if search.deadline == math.inf else search.deadline):
                if search.rank == 0:
                    listener, place = await _publish(agent, host, world_size, takeover)
                else:
                    listener, place = None, await agent.newer(0)
        except TimeoutError as error:
            raise join_timed_out(search.group, None if search.rank == 0 else (0,), started) from error
        patience = 0 if search.rank == 0 else SECOND_THOUGHT_SECONDS
        while True:
            forming = form(Address(host, place.port), listener)
            try:
                made = await _unless_newer(forming, agent.newer(place.number), patience)
            except BaseException:
                if listener is not None:
                    listener.close()
                raise
            if not isinstance(made, Publication):
                return made
            if search.rank == 0:
                raise RankConflictError(search.group, 0, f"a process that listens on port {made.port} of {host}")
            place = made


async def _publish(
    agent: AgentStore, host: str, world_size: int, takeover: bool
) -> tuple[socket.socket | None, Publication]:
    if takeover and (place := await agent.latest()) is not None:
        return None, place  # the member that is to be put out is there
    listener = await bind(Address(host, 0))
    try:
        _warn_of_loopback(listener, host, world_size)
        return listener, await agent.publish(address_of(listener).port)
    except BaseException:
        listener.close()
        raise


def _warn_of_loopback(listener: socket.socket, host: str, world_size: int) -> None:
    """torchrun names a host by its name, and /etc/hosts may have that as an address of loopback on the host itself."""
    address = address_of(listener)
    beyond_this_agent = world_size > int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    if beyond_this_agent and ipaddress.ip_address(address.host.partition("%")[0]).is_loopback:
        logger.warning(
            "%r is an address of loopback on the host of rank 0 (%s): ranks on other hosts cannot reach it; "
            "give torchrun --local-addr (or --master-addr) with an address that they can",
            host,
            address,
            extra={"host": host, "address": str(address)},
        )


async def _unless_newer(
    forming: Coroutine[Any, Any, G], newer: Coroutine[Any, Any, Publication], patience: float
) -> G | Publication:
    """The group; or what was published before it formed, and then it does not form any more."""
    group, news = asyncio.create_task(forming), asyncio.create_task(newer)
    try:
        await asyncio.wait((group, news), return_when=asyncio.FIRST_COMPLETED)
        if not group.done() and news.exception() is not None:
            await asyncio.wait((group,))  # there is no news to be had any more, and perhaps no need of it
        if _is_refused(group) and not news.done():
            await asyncio.wait((news,), timeout=patience)
    except BaseException:
        await _end(group, news)
        if _has_result(group):
            await group.result().close()
        raise
    await _end(group, news)
    return news.result() if _has_result(news) and not _has_result(group) else group.result()


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _has_result(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is None


def _is_refused(group: asyncio.Task[Any]) -> bool:
    error = group.exception() if group.done() and not group.cancelled() else None
    return isinstance(error, AiopgError) and not isinstance(error, GroupTimeoutError)
