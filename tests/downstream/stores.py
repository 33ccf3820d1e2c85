"""A store with limits and tokens, and what TLS is made from."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from aiopg import AsyncStatelessGroup, Limits, StoreServer, Tls, Token

SECRET = "a secret of 16 bytes or more"


async def main() -> None:
    token = Token(SECRET, groups=("team/*",), expires=datetime.now(UTC) + timedelta(days=1))
    async with StoreServer(limits=Limits(groups=100), token=token) as server:
        url: str = server.address
        connected = AsyncStatelessGroup.connect(url, rank=0, world_size=1, group="team/a", token=SECRET)
        async with await connected as group:
            print(await group.all_gather({"rank": group.rank}), server.describe()["groups"])
    print(Tls(ca="ca.pem").ca)


asyncio.run(main())
