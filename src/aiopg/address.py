"""Where a store is: `aiopg://host:port` or `unix:///path`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["NAMED_LATER", "Address"]

NAMED_LATER = frozenset({socket.EAI_AGAIN, socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
"""What a host's name that is not known meets. It may be known later: in a cluster a program is up before its peers have
their names."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (`host`, `port`) or a unix socket (`path`, then host is "" and port 0)."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"aiopg://{host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address of a URL. Raises `ValueError` that names the part that is wrong."""
        parts = urlsplit(url)
        if parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError(f"a store's URL has no user, query or fragment: {url!r}")
        if parts.scheme == "unix":
            if parts.netloc or not parts.path.startswith("/"):
                raise ValueError(f"a unix socket's URL is unix:///absolute/path, not {url!r}")
            return cls(path=parts.path)
        if parts.scheme != "aiopg":
            raise ValueError(f"a store's URL begins with aiopg:// or unix://, not {url!r}")
        if not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"a store's URL is aiopg://host:port, not {url!r}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"the port in {url!r} is not a number from 1 to 65535") from error
        if not port:
            raise ValueError(f"no port in {url!r}; a store's URL is aiopg://host:port")
        return cls(parts.hostname, port)
