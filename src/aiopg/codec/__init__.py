"""Objects to payloads and back: each value returns as the type that it was, or is refused.

`MsgpackCodec`, the default, sends None, bool, int of any size, float, complex, str (lone surrogates too),
bytes, bytearray, list, tuple, dict with any keys that can be sent, set, frozenset, date, time, datetime
(naive, or with a `timezone` or a `ZoneInfo`), timedelta, Decimal, UUID, the addresses of `ipaddress`, the
paths of `pathlib`, numpy arrays and scalars of fixed-size dtypes, torch tensors in the processor's memory, torch's
dtypes, Sizes and devices, and registered classes (`register_type`): Enums, dataclasses, NamedTuples, attrs classes,
models of pydantic 2, structures of ctypes, and any other class with a pair of functions. Only exact types count: a
subclass would come back as its base, so it is refused unless it is registered. NaN comes back as NaN; one object that
is met twice comes back as two. docs/objects.md has a table of what comes back.

numpy, torch, pydantic and attrs are never imported from here: a process that is to send or receive values of theirs
has imported them itself.

Decoding calls nothing but the classes and functions that this process registered, which may get whatever a peer
chose to send; how much it may take is limited (`_limits` has the table). `unsafe_pickle` is a codec that pickles: it is
never used unless it is given by name, as `codec=aiopg.codec.unsafe_pickle`, to every rank of a group.

The format is msgpack. Integers, floats (64 bit), str, bin, array (list) and map (dict) are msgpack's own; the
standard timestamp (extension -1) is read as a datetime in UTC and never written. Numbers are big-endian.

====  =========  ======================================================================================
code  type       data
====  =========  ======================================================================================
1     int        beyond 64 bits: two's complement
2     str        with lone surrogates: UTF-8 in which they are encoded like other code points
3     bytearray  the bytes
4     complex    two f64
5     datetime   u16 year, u8 month, day, hour, minute, second, u32 microsecond, u8 fold, zone
6     date       u16 year, u8 month, day
7     time       u8 hour, minute, second, u32 microsecond, u8 fold, zone
8     timedelta  i32 days, u32 seconds, u32 microseconds
9     Decimal    its text
10    UUID       16 bytes
11    ipaddress  u8 (0, 1 address; 2, 3 network; 4, 5 interface; of IPv4, IPv6), its text
12    path       u8 (0 Path, 1 PurePosixPath, 2 PureWindowsPath), its text as in code 2
64    mark       u8, always as fixext 1 and first in an array: what the array is
====  =========  ======================================================================================

zone: u8 0 for none; 1 for UTC; 2 for an offset (like timedelta); 3 for an offset and its name; 4 for an IANA
key, its text.

Marked arrays: 0 tuple, items; 1 set and 2 frozenset, members; 3 registered class, name and content; 4 numpy
array, dtype, shape, "C" or "F", elements; 5 numpy scalar, dtype, element. A dtype is numpy's `dtype.str`; or
a map with the keys names, formats, offsets, titles, itemsize and aligned; or an array of dtype and shape. 6 torch
tensor, name of its dtype, shape, elements in the order of a contiguous tensor and in the sender's byte order, which is
little-endian wherever torch runs; 7 torch's "dtype" and its name, "Size" and sizes, or "device" and its text.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from aiopg.codec._msgpack import MsgpackCodec
from aiopg.codec._plain import JsonCodec, RawCodec
from aiopg.codec._protocol import Buffer, BulkCodec, Codec, LargeCodec
from aiopg.codec._registry import TypeRegistry, register_type
from aiopg.codec._weight import LARGE_BYTES, is_large

__all__ = [
    "Codec",
    "MsgpackCodec",
    "JsonCodec",
    "RawCodec",
    "TypeRegistry",
    "register_type",
    "Buffer",
    "BulkCodec",
    "LargeCodec",
    "LARGE_BYTES",
    "is_large",
]


if TYPE_CHECKING:
    from aiopg.codec import unsafe_pickle as unsafe_pickle
else:

    def __getattr__(name: str) -> object:
        # Imported by whoever says its name: nobody else has pickle from here.
        if name == "unsafe_pickle":
            return importlib.import_module("aiopg.codec.unsafe_pickle")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
