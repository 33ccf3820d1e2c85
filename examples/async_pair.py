"""A server and a client that tell each other what they need to know, before they talk on a connection of their own.

Run each in a terminal, in any order::

    python examples/async_pair.py 0
    python examples/async_pair.py 1

A port other than 29400 can follow the rank. Nothing else has to run: rank 0 hosts the store.
"""

from __future__ import annotations

import asyncio
import sys

from aiopg import AsyncStatelessGroup


async def server(group: AsyncStatelessGroup) -> None:
    """Offer a service on any free port and tell the others where it is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.readline()
        writer.write(question.upper())
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        await group.broadcast({"host": host, "port": port, "model": "shouter-7b"}, src=0)
        verdict = await group.recv(src=1)
        print(f"server: the client says {verdict!r}")


async def client(group: AsyncStatelessGroup) -> None:
    """Learn where the service is, use it, and say how it was."""
    offer = await group.broadcast(src=0)
    print(f"client: rank 0 offers {offer['model']}")
    reader, writer = await asyncio.open_connection(offer["host"], offer["port"])
    writer.write(b"hello\n")
    print(f"client: it answers {(await reader.readline()).decode().strip()}")
    writer.close()
    await group.send("well done", dst=0)


async def main(rank: int, port: int) -> None:
    """Form the group and play one of the two parts."""
    async with await AsyncStatelessGroup.create("127.0.0.1", port, rank, 2, store_timeout=60) as group:
        await (server(group) if rank == 0 else client(group))
        await group.barrier()  # nobody leaves before both are done


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 29400))
