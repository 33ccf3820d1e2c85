"""URLs of stores in etcd: `etcd://[user:password@]host:port[,host:port...][/prefix]`, and `etcds://` with TLS."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from aiopg.stores.etcd._endpoints import check_endpoints

__all__ = ["EtcdUrl"]

FORM = "etcd://[user:password@]host:port[,host:port...][/prefix]"


@dataclass(frozen=True, slots=True)
class EtcdUrl:
    """Such a URL, in parts."""

    encrypted: bool
    endpoints: tuple[str, ...]
    """Each "host:port"."""
    user: str | None
    password: str | None
    prefix: str
    """Of all keys: empty, or a path without a slash at its end."""

    @classmethod
    def parse(cls, url: str) -> EtcdUrl:
        """Raises `ValueError`; what it says holds no password."""
        scheme, _, rest = url.partition("://")
        if scheme not in ("etcd", "etcds") or not rest:
            raise ValueError(f"the URL of a store in etcd is {FORM}, or the same with etcds")
        place, slash, path = rest.partition("/")
        login, at, hosts = place.rpartition("@")
        if any(mark in rest.rpartition("@")[2] for mark in "?#"):
            raise ValueError(f"the URL of a store in etcd has no query and no fragment: {FORM}")
        user, colon, password = login.partition(":")
        if at and not (user and colon):
            raise ValueError(f"a login at etcd is a user and a password: {FORM}")
        try:
            endpoints = check_endpoints(hosts.split(","))
        except ValueError as error:
            raise ValueError(f"{error}; the URL of a store in etcd is {FORM}") from None
        return cls(
            scheme == "etcds",
            endpoints,
            unquote(user) if at else None,
            unquote(password) if at else None,
            (slash + path).rstrip("/"),
        )

    def __str__(self) -> str:
        """Without the password: for people, and in errors."""
        login = f"{self.user}@" if self.user is not None else ""
        return f"{'etcds' if self.encrypted else 'etcd'}://{login}{','.join(self.endpoints)}{self.prefix}"
