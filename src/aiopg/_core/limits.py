"""Every bound of a store, with its name, its default and the reason for it.

A bound that is reached gives an error that names it (`StoreFullError.limit`, `PayloadTooLargeError`,
`ProtocolError`); nothing stalls and nothing is dropped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Limits"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

HEAD_BYTES_MOST = 16 * KIB
"""A head must fit the receiver's reused buffer (`frames.RECEIVE_BUFFER`) with room to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one store. The server states `payload_bytes` at connect, so a sender can refuse by itself."""

    head_bytes: int = 4 * KIB
    """Head of one frame. The longest legal one holds a group name, a tag and a dozen numbers: under 1 KiB."""

    payload_bytes: int = 1 * GIB
    """One encoded object, or all parts of one collective call (torch's store: 8 MiB, then a reset; Redis:
    512 MiB): four objects of 256 MiB less a few bytes. The bound is there so that a wrong call fails before it fills
    a host."""

    group_bytes: int = 4 * GIB
    """Payload bytes that one group may have waiting on the store: a few of the largest payloads."""

    store_bytes: int = 8 * GIB
    """Payload bytes that all groups together may have waiting; each group is counted in steps of 64 KiB."""

    group_messages: int = 262144
    """Messages of one group that wait to be received."""

    mailbox_messages: int = 65536
    """Messages waiting in one mailbox, that is for one (src, dst, tag)."""

    open_rounds: int = 65536
    """Collectives of one group that some rank has called and some rank has not."""

    waiting_calls: int = 4096
    """Calls of one session that wait on the store at once."""

    name_bytes: int = 128
    """Length of a group name, UTF-8."""

    tag_bytes: int = 64
    """Length of a text tag, UTF-8. A tag may also be a 64-bit integer."""

    metadata_bytes: int = 4 * KIB
    """What a member may say of itself when ranks are given out in order of arrival: every rank gets that of all."""

    reason_bytes: int = 1 * KIB
    """Length of the text given to abort(); the rest is cut off."""

    world_size: int = 16384
    """Ranks of one group."""

    keys: int = 131072
    """Keys, and queues that hold something or are waited for, of one key space (torch's store: 128 Ki). As many locks
    may be held."""

    key_bytes: int = 1 * KIB
    """Length of the name of a key, a queue, a meeting or a lock, UTF-8 (torch's store: 8 KiB)."""

    value_bytes: int = 16 * MIB
    """What a key holds, or one item of a queue (torch's store: 8 MiB, then a reset). Larger things go by `send`."""

    keys_per_call: int = 1024
    """Keys of one call."""

    queue_items: int = 65536
    """Items that wait in one queue. One that goes back to its place is not refused."""

    kept_changes: int = 4096
    """Changes of keys that a space keeps for those who watch it and are slow to ask for them."""

    kept_changes_bytes: int = 4 * MIB
    """Bytes of the keys and values in them."""

    groups: int = 4096
    """Live groups on one store; and as many that are to form of whoever comes."""

    seats: int = 1024
    """Groups that one session is a member of at once, or waits for without a rank of its own."""

    sessions: int = 16384
    """Members connected to one store."""

    outbox_frames: int = 4096
    """Messages sent and not yet acknowledged on one session. Past it nothing more is asked of this session (a member's
    calls wait, a store reads no more of its commands) until the other end acknowledges some."""

    retained_bytes: int = 64 * MIB
    """Bytes of the large ones among them. One message may take a session past it: a payload may be larger."""

    output_bytes: int = 2 * GIB
    """Bytes that a store keeps for one session whose member does not read; past it that session is ended. More than
    the largest payload: a member that is slow to read one is not ended for it."""

    grace_seconds: float = 3600.0
    """The longest that a session may ask to be kept while no connection carries it."""

    handshake_seconds: float = 5.0
    """Time from accepting a connection to its first frame (NATS 2 + 2 s, sshd 120 s)."""

    strangers: int = 16384
    """Connections that have not opened a session. Past it the oldest one is cut for the newest (sshd: 100)."""

    failed_logins: int = 10
    """Logins that fail from one address within a second and are told so. Further ones are not answered, only ended."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} must be over 0, not {getattr(self, field.name)}")
        if self.head_bytes > HEAD_BYTES_MOST:
            raise ValueError(f"head_bytes must be at most {HEAD_BYTES_MOST}, not {self.head_bytes}")
        if self.body_bytes >= 4 * GIB:
            raise ValueError(f"payload_bytes must be under 4 GiB, less 4 bytes a rank, not {self.payload_bytes}")

    @property
    def body_bytes(self) -> int:
        """The longest legal body of a frame: the collectives put a table of four bytes a rank before their parts."""
        return self.payload_bytes + 4 * self.world_size
