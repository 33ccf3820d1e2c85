"""Vectors of payloads: a value of every type that the default codec knows, and bytes that are no value.

To add a type, add a value of it to `VALUES` and run `python -m tests.vectors.generate`.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import ipaddress
import pathlib
import uuid
import zoneinfo
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
import torch

from aiopg.codec import MsgpackCodec, TypeRegistry

from . import Vector

__all__ = ["CODEC", "VALUES", "about", "sections", "value_of"]

about = (
    "Payloads of the default codec. A value is written as Python writes it, with the names of the standard library's, "
    "numpy's and torch's types; Peer, Point, Colour, Rights and Celsius are registered as example.Peer and so on (see "
    "payloads.py). `encodes` are bytes that are written for a value, `decodes` others that are read as one."
)


@dataclass
class Peer:
    host: str
    port: int


class Point(NamedTuple):
    x: float
    y: float


class Colour(enum.Enum):
    RED = "red"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Celsius:
    degrees: float


REGISTRY = TypeRegistry()
for _cls in (Peer, Point, Colour, Rights):
    REGISTRY.register(_cls, name=f"example.{_cls.__name__}")
REGISTRY.register(Celsius, name="example.Celsius", encode=lambda it: it.degrees, decode=Celsius)
CODEC = MsgpackCodec(REGISTRY)

_NAMES: dict[str, Any] = {
    **{name: getattr(datetime, name) for name in ("UTC", "date", "datetime", "time", "timedelta", "timezone")},
    **{name: getattr(ipaddress, name) for name in ipaddress.__dict__ if name.startswith("IPv")},
    "Decimal": decimal.Decimal,
    "Path": pathlib.Path,
    "PurePosixPath": pathlib.PurePosixPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
    "UUID": uuid.UUID,
    "ZoneInfo": zoneinfo.ZoneInfo,
    "numpy": numpy,
    "torch": torch,
    "Peer": Peer,
    "Point": Point,
    "Colour": Colour,
    "Rights": Rights,
    "Celsius": Celsius,
}


def value_of(text: str) -> object:
    """The value that is written so."""
    value: object = eval(text, dict(_NAMES))
    return value


VALUES: dict[str, str] = {
    "none": "None",
    "false": "False",
    "true": "True",
    "zero": "0",
    "a small int": "7",
    "a negative int": "-33",
    "an int of 16 bits": "4711",
    "the highest int of msgpack": "2**64 - 1",
    "the lowest int of msgpack": "-(2**63)",
    "an int beyond 64 bits": "2**64",
    "a negative int beyond 64 bits": "-(2**63) - 1",
    "a float": "0.5",
    "minus zero": "-0.0",
    "infinity": "float('inf')",
    "not a number": "float('nan')",
    "a complex": "1.5-2j",
    "a str": "'rank 7'",
    "a str that is not ASCII": "'é☃'",
    "a str with a lone surrogate": "'\\ud800x'",
    "bytes": "b'\\x00\\xff'",
    "a bytearray": "bytearray(b'ab')",
    "a list": "[1, 'a', None]",
    "a dict": "{'rank': 7}",
    "a dict with keys of any type": "{1: 'int', (0, b'x'): 'tuple', None: 'none'}",
    "a tuple": "(1, 2)",
    "the empty tuple": "()",
    "a tuple in a list": "[(1, 2)]",
    "a set": "{1}",
    "a frozenset": "frozenset({'a'})",
    "a datetime without a zone": "datetime(2026, 2, 28, 23, 59, 58, 999999)",
    "a datetime in UTC": "datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)",
    "a datetime with an offset": "datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))",
    "a datetime with an offset that has a name": "datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=1), 'CET'))",
    "a datetime in a zone, in the hour that comes twice":
        "datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo('Europe/Berlin'))",
    "a date": "date(2026, 1, 2)",
    "a time": "time(3, 4, 5, 6)",
    "a time in UTC": "time(3, 4, 5, tzinfo=UTC)",
    "a timedelta": "timedelta(days=1, seconds=2, microseconds=3)",
    "a negative timedelta": "timedelta(seconds=-1)",
    "a decimal": "Decimal('-1.50')",
    "a uuid": "UUID('00112233-4455-6677-8899-aabbccddeeff')",
    "an address of IPv4": "IPv4Address('10.0.0.7')",
    "an address of IPv6": "IPv6Address('2001:db8::1')",
    "a network of IPv4": "IPv4Network('10.0.0.0/8')",
    "a network of IPv6": "IPv6Network('2001:db8::/32')",
    "an interface of IPv4": "IPv4Interface('10.0.0.7/8')",
    "an interface of IPv6": "IPv6Interface('2001:db8::1/64')",
    "a path": "Path('/srv/model')",
    "a path of POSIX": "PurePosixPath('a/b')",
    "a path of Windows": "PureWindowsPath('C:/a')",
    "a dataclass": "Peer('10.0.0.7', 8000)",
    "a NamedTuple": "Point(1.0, -0.0)",
    "an Enum": "Colour.RED",
    "a Flag": "Rights.READ | Rights.WRITE",
    "a class with functions of its own": "Celsius(21.5)",
    "a numpy array": "numpy.array([[1, 2], [3, 4]], '<i2')",
    "a numpy array in the order of Fortran": "numpy.asfortranarray(numpy.array([[1, 2], [3, 4]], '<i2'))",
    "a numpy array without elements": "numpy.zeros((0, 3), '<f4')",
    "a numpy array of structures":
        "numpy.array([(1, 2.0)], numpy.dtype([('id', '<u4'), ('at', '<f8')]))",
    "a numpy array of arrays in structures": "numpy.array([([1, 2],)], numpy.dtype([('p', '<u2', (2,))]))",
    "a numpy scalar": "numpy.float32(0.5)",
    "a torch tensor": "torch.tensor([[1, 2], [3, 4]], dtype=torch.int16)",
    "a torch tensor of bfloat16": "torch.tensor([0.5], dtype=torch.bfloat16)",
    "a torch tensor without elements": "torch.zeros((0, 3))",
    "a torch dtype": "torch.bfloat16",
    "a torch size": "torch.Size([2, 3])",
    "a torch device": "torch.device('cuda', 1)",
}  # fmt: skip

READ: dict[str, tuple[str, str]] = {
    "an int in a longer form than it needs": ("cd0007", "7"),
    "a float of 32 bits": ("ca3f000000", "0.5"),
    "a str in a longer form than it needs": ("d90161", "'a'"),
    "a list in a longer form than it needs": ("dc0001c3", "[True]"),
    "an extension in a longer form than it needs": ("c7010107", "7"),
    "a key that comes twice: the last value counts": ("8201000103", "{1: 3}"),
    "the timestamp of msgpack": ("d6ff65937ec0", "datetime(2024, 1, 2, 3, 10, 56, tzinfo=UTC)"),
    "a small int as an extension": ("d40107", "7"),
    "a str without surrogates as an extension": ("d40261", "'a'"),
    "a set that has a member twice": ("93d440010707", "{7}"),
}

MALFORMED: dict[str, tuple[str, str]] = {
    "nothing": ("", "msgpack: malformed"),
    "a byte that begins nothing": ("c1", "msgpack: malformed"),
    "a str that is cut off": ("a561", "msgpack: malformed"),
    "two values": ("0102", "msgpack: malformed"),
    "a str that is no UTF-8": ("a1ff", "msgpack: malformed"),
    "a dict as a key": ("81800a", "msgpack: malformed"),
    "an extension that is none": ("d40d00", "msgpack extension 13: not part of this format"),
    "a negative extension that is none": ("d48000", "msgpack extension -128: not part of this format"),
    "a complex that is too short": ("d704" + "00" * 8, "complex: malformed"),
    "a datetime of month 13": ("c70d05" + "07ea0d02030405" + "00000000" + "0000", "datetime: malformed"),
    "a zone that is none": ("c70d05" + "07ea0102030405" + "00000000" + "0009", "datetime: malformed"),
    "a zone that is a way out of its folder": (
        "c71107" + "030405" + "00000000" + "00" + "04" + b"../etc/x".hex(), "time: malformed"
    ),
    "a timedelta with a second of microseconds": (
        "c70c08" + "00000000" + "00000000" + "000f4240", "timedelta: malformed"
    ),
    "a decimal that is none": ("d5096162", "decimal: malformed"),
    "a uuid of 15 bytes": ("c70f0a" + "00" * 15, "uuid: malformed"),
    "an address that is none": ("c7030b003132", "address: malformed"),
    "a path of a kind that is none": ("d50c0361", "path: malformed"),
    "a mark that is none": ("91d44008", "mark: not part of this format"),
    "a mark of two bytes": ("91d5400001", "msgpack extension 64: not part of this format"),
    "a mark in a longer form than it needs": ("92c701400107", "msgpack extension 64: not part of this format"),
    "a mark that is not first": ("9201d44000", "mark: a mark that is not the first of an array"),
    "a mark by itself": ("d44000", "mark: a mark that is not the first of an array"),
    "a list in a set": ("92d4400190", "set: malformed"),
    "an object of a class that is not registered": ("93d44003a178c0", "x: no class has that name here"),
    "a dataclass without its fields": (
        "93d44003ac" + b"example.Peer".hex() + "80", "example.Peer: its class refused what was sent"
    ),
    "an Enum without such a member": (
        "93d44003ae" + b"example.Colour".hex() + "a4424c5545", "example.Colour: its class refused what was sent"
    ),
    "an array of Python objects": (
        "95d44004a3" + b"|O8".hex() + "9101a143c408" + "00" * 8, "array: malformed"
    ),
    "an array of fewer bytes than its shape says": (
        "95d44004a3" + b"<i2".hex() + "9102a143c40100", "array: malformed"
    ),
    "an array in an order that is none": ("95d44004a3" + b"<i2".hex() + "9101a141c4020000", "array: malformed"),
    "more containers in one another than are allowed": ("91" * 129 + "c0", "more than max_depth = 128"),
    "a payload of unsafe_pickle": (
        (b"\xc1aiopg pickle\n" + b"\x80\x05N.").hex(), "the peer uses aiopg.codec.unsafe_pickle"
    ),
}  # fmt: skip


def sections() -> dict[str, list[Vector]]:
    """All of them, by section."""
    return {
        "encodes": [
            {"name": name, "value": text, "payload": CODEC.encode(value_of(text)).hex()}
            for name, text in VALUES.items()
        ],
        "decodes": [{"name": name, "payload": data, "value": text} for name, (data, text) in READ.items()],
        "malformed": [
            {"name": name, "payload": data, "error": "CodecError", "says": says}
            for name, (data, says) in MALFORMED.items()
        ],
    }
