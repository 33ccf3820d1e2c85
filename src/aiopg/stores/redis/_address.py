"""Where a Redis is: the URLs, and how a room's keys are named there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from aiopg.stores._rooms import COMMON, RoomName

__all__ = ["Host", "RedisAddress", "room_prefix"]

Host = tuple[str, int]

PORT = 6379
SENTINEL_PORT = 26379

FORMS = (
    "redis://[user:password@]host[:port][/db], rediss:// with TLS, redis+unix:///path[?db=N], "
    "redis+sentinel://host[:port],...[/service][/db] and redis+cluster://host[:port],... "
    "(rediss+sentinel, rediss+cluster with TLS)"
)
_KINDS = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """A store's URL in parts. Its text leaves user and password out: it stands in errors and logs."""

    scheme: str
    hosts: tuple[Host, ...] = ()
    path: str = ""
    """Of the unix socket."""
    service: str = ""
    """What the sentinels call the primary and its replicas."""
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def kind(self) -> str:
        """ "single", "unix", "sentinel" or "cluster"."""
        return _KINDS[self.scheme][0]

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return _KINDS[self.scheme][1]

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"{self.scheme}://{self.path}" + (f"?db={self.db}" if self.db else "")
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        service = f"/{self.service}" if self.service else ""
        return f"{self.scheme}://{hosts}{service}" + (f"/{self.db}" if self.db else "")

    @classmethod
    def parse(cls, url: str) -> RedisAddress:
        """The address of a URL. Raises `ValueError` that names the part that is wrong, and shows no password."""
        scheme, _, rest = url.partition("://")
        if scheme not in _KINDS:
            raise ValueError(f"a Redis store's URL is one of {FORMS}, not {scheme}://...")
        login, at, rest = rest.rpartition("@")
        username, _, password = login.partition(":")
        if at and not login:
            raise ValueError(f"no user and password before the @ in a {scheme}:// URL")
        said = f"{scheme}://{'...@' if at else ''}{rest}"
        known: dict[str, Any] = {"scheme": scheme, "username": unquote(username), "password": unquote(password)}
        kind = _KINDS[scheme][0]
        if kind == "unix":
            path, _, query = rest.partition("?")
            if not path.startswith("/") or (query and not query.startswith("db=")):
                raise ValueError(f"a Redis socket's URL is redis+unix:///absolute/path[?db=N], not {said!r}")
            return cls(**known, path=unquote(path), db=_database(query.removeprefix("db="), said))
        if "?" in rest or "#" in rest:
            raise ValueError(f"a Redis store's URL has no query or fragment: {said!r}")
        authority, *path_parts = rest.rstrip("/").split("/")
        port = SENTINEL_PORT if kind == "sentinel" else PORT
        hosts = tuple(_host(one, port, said) for one in authority.split(","))
        if kind == "single" and len(hosts) > 1:
            raise ValueError(f"{scheme}:// takes one host; for several there is {scheme}+sentinel:// and +cluster://")
        service = unquote(path_parts.pop(0)) if kind == "sentinel" and path_parts else ""
        if kind == "sentinel" and not service:
            raise ValueError(f"no service in {said!r}; it is {scheme}://host:port,host:port/service")
        if len(path_parts) > 1 or (kind == "cluster" and path_parts):
            raise ValueError(f"too much behind the hosts in {said!r}; {scheme}:// takes {FORMS}")
        return cls(**known, hosts=hosts, service=service, db=_database("".join(path_parts), said))


def _host(text: str, port: int, url: str) -> Host:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        digits = rest.removeprefix(":")
    else:
        host, _, digits = text.partition(":")
    if not host:
        raise ValueError(f"no host in {url!r}")
    if digits and not (digits.isascii() and digits.isdecimal() and 0 < int(digits) < 65536):
        raise ValueError(f"the port in {url!r} is not a number from 1 to 65535")
    return host, int(digits) if digits else port


def _database(text: str, url: str) -> int:
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError(f"the database in {url!r} is not a number")
    return int(text) if text else 0


def room_prefix(name: RoomName) -> bytes:
    """What the keys of a room begin with: all of them have one hash tag, so they are on one node of a cluster."""
    if name is COMMON:
        return b"aiopg:{keys}"
    quoted = quote(name, safe="", errors="surrogatepass").replace("~", "%7E")
    return b"aiopg:{g:%s}" % quoted.encode()
