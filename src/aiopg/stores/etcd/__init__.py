"""Groups over etcd: `etcd://host:port,host:port,host:port/prefix`, and `etcds://` with TLS.

etcd has no code of ours at its end, but it keeps what is written to it in one order for all, and tells everybody of it.
So each room of the store (`stores._rooms`) is a log there, and every member of the room has a copy of its engine, which
all of them bring on by the same entries in the same order (`_core.replica`): the engine is the one of all our stores,
with nothing written anew, and no member has to be asked for anything. A member's session goes with its lease, and its
end is an entry like all else.

What each file does: `_link` is the store; `_room` writes to a room's log and `_reader` hears it; `_copy` reads a room
that is there, `_housekeeping` keeps its log short; `_blobs` moves large payloads past the log; `_layout` names the
keys. The client of etcd is `_client` and what that imports.
"""

from __future__ import annotations

from aiopg.stores.etcd._link import EtcdLink

__all__ = ["EtcdLink"]
