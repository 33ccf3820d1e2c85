"""Three members of etcd, of which one can be killed, stopped, or cut off from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._messages import Status

from .relays import Relays
from .servers import SLOW, EtcdServer

LEADER_SECONDS = 20.0


class EtcdCluster:
    """Members on loopback. `start`, `close` and what members do themselves block; the rest is for a loop."""

    def __init__(self, directory: Path, size: int = 3) -> None:
        names = [f"m{number}" for number in range(size)]
        self._relays = Relays(names, lambda name: self[name].peer, lambda name: self[name].running)
        addresses = self._relays.addresses
        everyone = ",".join(f"{name}=http://{address}" for name, address in addresses.items())
        self.members = [
            EtcdServer(
                directory,
                # etcd's own times. On a machine that is busy with other tests no leader would last with shorter ones.
                *("--heartbeat-interval", "100", "--election-timeout", "1000"),
                *("--initial-advertise-peer-urls", f"http://{addresses[name]}", "--initial-cluster", everyone),
                name=name,
            )
            for name in names
        ]

    def __getitem__(self, name: str) -> EtcdServer:
        return next(member for member in self.members if member.name == name)

    @property
    def endpoints(self) -> list[str]:
        """Of all members."""
        return [member.endpoint for member in self.members]

    @property
    def url(self) -> str:
        """Where a store is in it."""
        return f"etcd://{','.join(self.endpoints)}"

    def start(self) -> None:
        """Start all, and wait until they serve."""
        for member in self.members:
            member.start(wait=False)
        for member in self.members:
            member.wait_serving()

    def close(self) -> None:
        """End all."""
        for member in self.members:
            member.kill()
        self._relays.close()

    def isolate(self, member: EtcdServer) -> None:
        """Cut it off from the other members; its clients still reach it."""
        self._relays.isolate(member.name)

    def heal(self) -> None:
        """Nobody is cut off any more."""
        self._relays.heal()

    def mend(self) -> None:
        """Everything that a test did to them is undone; blocks until all serve."""
        self.heal()
        broken = [member for member in self.members if member.running is None]
        for member in self.members:
            if member in broken:
                member.start(wait=False)
            else:
                member.resume()
        for member in broken:
            member.wait_serving()

    async def leader(self, among: Iterable[EtcdServer] | None = None) -> EtcdServer:
        """The member that all of them, or those given, say leads: as soon as they agree."""
        members = list(self.members if among is None else among)
        async with asyncio.timeout(LEADER_SECONDS * SLOW):
            while True:
                said = await asyncio.gather(*(_status(member) for member in members))
                leaders = {status.leader if status else 0 for status in said}
                for member, status in zip(members, said, strict=True):
                    if status is not None and leaders == {status.member}:
                        return member
                await asyncio.sleep(0.05)  # etcd tells nobody who leads: it has to be asked


async def _status(member: EtcdServer) -> Status | None:
    try:
        async with asyncio.timeout(1.0), await EtcdClient.connect([member.endpoint], timeout=0.9) as client:
            return await client.status()
    except (OSError, TimeoutError):
        return None
