"""The stores a group can talk to, found by the scheme of their URL."""

from __future__ import annotations

import importlib
from urllib.parse import urlsplit

from aiopg.stores.base import StoreLink
from aiopg.tls import Encryption

__all__ = ["StoreLink", "open_link"]

_SCHEMES = {
    "aiopg": ("aiopg.stores.native", "NativeLink"),
    "unix": ("aiopg.stores.native", "NativeLink"),
    "memory": ("aiopg.stores.memory", "MemoryLink"),
    "etcd": ("aiopg.stores.etcd", "EtcdLink"),
    "etcds": ("aiopg.stores.etcd", "EtcdLink"),
    "redis": ("aiopg.stores.redis", "RedisLink"),
    "rediss": ("aiopg.stores.redis", "RedisLink"),
    "redis+unix": ("aiopg.stores.redis", "RedisLink"),
    "redis+sentinel": ("aiopg.stores.redis", "RedisLink"),
    "rediss+sentinel": ("aiopg.stores.redis", "RedisLink"),
    "redis+cluster": ("aiopg.stores.redis", "RedisLink"),
    "rediss+cluster": ("aiopg.stores.redis", "RedisLink"),
}


async def open_link(
    url: str,
    *,
    timeout: float = 300.0,
    grace: float = 5.0,
    token: str | None = None,
    ssl: Encryption | None = None,
) -> StoreLink:
    """A link to the store at `url`: `aiopg://host:port`, `unix:///path`, `memory://name`, `redis://` or `etcd://`.

    A Redis is reached by `redis://host:port`, `rediss://` (TLS), `redis+unix:///path`, `redis+sentinel://host:port,.../name`
    and `redis+cluster://host:port,...`, and takes the extra `redis` (docs/redis.md). An etcd is reached by
    `etcd://host:port,host:port,...` and `etcds://` (TLS), and takes the extra `etcd` (docs/etcd.md).

    Args:
        url: where the store is. One that is still coming up is waited for.
        timeout: seconds to wait for it.
        grace: seconds for which the store is to keep this process's members when the connection breaks.
        token: what the store and this process both know, see `aiopg.Token`; that of AIOPG_TOKEN if not given. Redis
            and etcd have users and passwords instead, which stand in the URL.
        ssl: encryption, see `aiopg.Tls`; that of AIOPG_TLS_CA, AIOPG_TLS_CERT and AIOPG_TLS_KEY if not given.

    Raises:
        AuthenticationError: the store and this process do not share a token.
        ValueError: no store is known by that scheme, or a part of the URL is wrong.
        ImportError: what that kind of store takes is not installed; the error says how to install it.
        StoreUnreachableError: no store there; at once where waiting does not help, else at the timeout.
    """
    scheme = urlsplit(url).scheme
    if scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise ValueError(f"no store is known by {url!r}; a store's URL begins with one of {known}")
    module, name = _SCHEMES[scheme]
    kind = getattr(importlib.import_module(module), name)
    store: StoreLink = await kind.connect(url, timeout=timeout, grace=grace, token=token, tls=ssl)
    return store
