"""Time zones as bytes: none, UTC, a fixed offset with or without a name, or an IANA key."""

from __future__ import annotations

import functools
import re
import struct
from datetime import UTC, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["ZONES", "pack_zone", "unpack_zone"]

_NAIVE, _UTC, _OFFSET, _NAMED_OFFSET, _KEY = range(5)
_OFFSET_FIELDS = struct.Struct(">iII")
# A key is looked up as a path below the zone directories: it may be nothing but a plain relative one.
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_+-]{1,64}(/[A-Za-z0-9_+-]{1,64}){0,3}", re.ASCII)

ZONES = 1024
"""Time zones that are kept once they were read from disk. There are about 600."""


def pack_zone(zone: tzinfo | None) -> bytes:
    """The bytes of a time zone.

    Raises:
        ValueError: it is not timezone.utc, a `datetime.timezone` or a `zoneinfo.ZoneInfo` with a key.
    """
    if zone is None:
        return bytes([_NAIVE])
    if zone is UTC:
        return bytes([_UTC])
    if type(zone) is timezone:
        offset, name = zone.utcoffset(None), zone.tzname(None)
        fields = _OFFSET_FIELDS.pack(offset.days, offset.seconds, offset.microseconds)
        if name == timezone(offset).tzname(None):
            return bytes([_OFFSET]) + fields
        return bytes([_NAMED_OFFSET]) + fields + name.encode("utf-8", "surrogatepass")
    if type(zone) is ZoneInfo and zone.key is not None and _PLAIN_KEY.fullmatch(zone.key):
        return bytes([_KEY]) + zone.key.encode("ascii")
    raise ValueError(
        f"its time zone {zone!r} cannot be sent; use datetime.timezone or zoneinfo.ZoneInfo with an IANA key"
    )


def unpack_zone(data: bytes) -> tzinfo | None:
    """The time zone of the bytes.

    Raises:
        ValueError: they are no time zone, or one that this host does not know.
        IndexError, struct.error: they are too short.
    """
    kind, rest = data[0], data[1:]
    if kind in (_NAIVE, _UTC):
        if rest:
            raise ValueError("bytes after a time zone")
        return UTC if kind == _UTC else None
    if kind in (_OFFSET, _NAMED_OFFSET):
        offset = timedelta(*_OFFSET_FIELDS.unpack_from(rest))
        name = rest[_OFFSET_FIELDS.size :].decode("utf-8", "surrogatepass")
        if kind == _OFFSET and name:
            raise ValueError("bytes after a time zone")
        return timezone(offset, name) if kind == _NAMED_OFFSET else timezone(offset)
    if kind == _KEY:
        return _zone_of_key(rest.decode("ascii"))
    raise ValueError(f"{kind} is no kind of time zone")


# ZoneInfo keeps eight zones; a payload that goes round in more of them would read a file for each datetime.
@functools.lru_cache(maxsize=ZONES)
def _zone_of_key(key: str) -> ZoneInfo:
    if not _PLAIN_KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no IANA time zone key")
    try:
        return ZoneInfo(key)
    # OSError: the key names a directory.
    except (ZoneInfoNotFoundError, OSError) as error:
        raise ValueError(f"this host has no time zone {key!r}; try: pip install tzdata") from error
