"""The store, or the road to it, is the trouble."""

from __future__ import annotations

from aiopg.errors._root import AiopgError, Outcome

__all__ = [
    "StoreError",
    "StoreUnreachableError",
    "AddressInUseError",
    "StoreLostError",
    "AuthenticationError",
    "StoreFullError",
    "DataExpiredError",
    "WatchGapError",
    "JournalCorruptError",
    "ProtocolError",
]


class StoreError(AiopgError):
    """The store, or the road to it, is the trouble."""


class StoreUnreachableError(StoreError, ConnectionError):
    """No store could be reached.

    Attributes:
        address: where it was looked for.
        reason: what the last attempt met.
    """

    _fields = ("address", "reason")

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"no aiopg store reached at {address}: {reason}")
        self.address, self.reason = address, reason


class AddressInUseError(StoreError):
    """The address to serve on is held by something that is not an aiopg store.

    Attributes:
        address: the address.
        reason: what is known about the holder.
    """

    _fields = ("address", "reason")

    def __init__(self, address: str, reason: str) -> None:
        advice = "remove it if no server uses it" if address.startswith("unix:") else "choose another port"
        super().__init__(f"cannot serve on {address}: {reason}; {advice}")
        self.address, self.reason = address, reason


class StoreLostError(StoreError):
    """The link to the store ended, and with it this member's place in its groups.

    Attributes:
        address: the store's address.
        reason: how the link ended.
    """

    _fields = ("address", "reason")
    outcome = Outcome.UNKNOWN

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the store at {address} is lost: {reason}")
        self.address, self.reason = address, reason


class AuthenticationError(StoreError):
    """The store and this process could not prove to each other that they share a token.

    Attributes:
        address: the store's address; empty where a login was good and not for this group.
        reason: which side refused, and what.
    """

    _fields = ("address", "reason")

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"login at {address} failed: {reason}" if address else f"not allowed: {reason}")
        self.address, self.reason = address, reason


class StoreFullError(StoreError):
    """A limit of the store was reached; the call was refused and nothing else was touched.

    Attributes:
        limit: name of the limit, as in the documentation.
        allowed: its value.
        holder: who holds what fills it ("group 'default'").
    """

    _fields = ("limit", "allowed", "holder")

    def __init__(self, limit: str, allowed: int, holder: str = "") -> None:
        at = f" for {holder}" if holder else ""
        super().__init__(f"the store's limit {limit} = {allowed} is reached{at}")
        self.limit, self.allowed, self.holder = limit, allowed, holder


class DataExpiredError(StoreError):
    """The data was there, and waited longer than the group's data_expiration_seconds.

    Attributes:
        group: name of the group.
        what: which data ("message from rank 3, tag 0", "broadcast number 7, tag 0").
    """

    _fields = ("group", "what")

    def __init__(self, group: str, what: str) -> None:
        super().__init__(f"{what} of group {group!r} expired before it was read")
        self.group, self.what = group, what


class WatchGapError(StoreError):
    """Changes of keys that a watch was to tell are not kept any more: the watcher has to look at the keys anew.

    Attributes:
        prefix: what was watched.
        revision: the revision after which changes were asked for.
        oldest: changes are kept from behind this revision on.
    """

    _fields = ("prefix", "revision", "oldest")

    def __init__(self, prefix: str, revision: int, oldest: int) -> None:
        super().__init__(
            f"the changes of keys {prefix + '*'!r} after revision {revision} are not kept any more (only those after "
            f"{oldest} are); read the keys anew and watch from there"
        )
        self.prefix, self.revision, self.oldest = prefix, revision, oldest


class JournalCorruptError(StoreError):
    """The journal on disk is damaged, and not only at its end: the server refuses to start from it.

    Attributes:
        file: the file that is damaged or missing.
        offset: where in it, in bytes from its beginning.
        reason: what is wrong there.
    """

    _fields = ("file", "offset", "reason")

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(
            f"the journal is damaged at byte {offset} of {file}: {reason}; "
            "restore it from a copy, or move it away to begin with an empty store"
        )
        self.file, self.offset, self.reason = file, offset, reason


class ProtocolError(StoreError):
    """The other end sent what the protocol does not allow. The connection is closed.

    Attributes:
        reason: the rule that was broken.
    """

    _fields = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
