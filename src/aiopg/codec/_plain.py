"""Codecs for those who need no types beyond JSON, or who encode by themselves."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from aiopg.codec._limits import DEFAULT_LIMITS, Limits
from aiopg.codec._marks import PICKLE_MARK, unsafe_peer
from aiopg.codec._path import ROOT, Step
from aiopg.codec._protocol import Buffer
from aiopg.codec._survey import survey
from aiopg.errors import CodecError

__all__ = ["JsonCodec", "RawCodec"]

# One that has no end is taken to the end of the text, or each quote in it would be tried in turn.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_SCALARS = frozenset({type(None), bool, int, str})


class JsonCodec:
    """JSON in UTF-8: None, bool, int, finite float, str, list, and dict with str keys; nothing else.

    What JSON would turn into something else (a tuple, a key that is no str, a subclass of any of these, nan
    and inf, lone surrogates) is refused. The limits are those of `MsgpackCodec`, in both directions.

    Args:
        max_depth: how many lists and dicts may lie inside one another.
    """

    name = "json"

    def __init__(self, *, max_depth: int = DEFAULT_LIMITS.max_depth) -> None:
        self._limits = Limits(max_depth=max_depth)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_depth={self._limits.max_depth})"

    def encode(self, obj: object) -> bytes:
        """The JSON text of an object.

        Raises:
            CodecError: something in it is not plain JSON, or a limit is passed.
        """
        self._check(obj, ROOT, 1)
        try:
            text = json.dumps(obj, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except ValueError as error:
            raise ROOT.refuse(obj, f"JSON cannot hold it: {error}") from error
        self._check_containers(text, "obj")
        return text

    def decode(self, payload: Buffer) -> object:
        """The object of a JSON text; of a key that comes twice the last value counts.

        Raises:
            CodecError: the payload is not JSON in UTF-8, or a limit is passed.
        """
        text = bytes(payload)
        self._check_containers(text, "payload")
        try:
            value: object = json.loads(text.decode(), parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            if text.startswith(PICKLE_MARK):
                raise unsafe_peer() from error
            raise CodecError("payload", "json", f"not JSON in UTF-8: {error}") from error
        if survey(value)[1] > self._limits.max_depth:
            raise CodecError("payload", "json", self._limits.too_deep())
        return value

    def _check(self, value: object, path: Step, depth: int) -> None:
        kind = type(value)
        if kind in _SCALARS:
            return
        if type(value) is float:
            if not math.isfinite(value):
                raise path.refuse(value, "JSON has no nan and no infinity; use the default codec")
            return
        if kind is not list and kind is not dict:
            raise path.refuse(value, "it is not plain JSON and would change its type; use the default codec")
        if depth > self._limits.max_depth:
            raise path.refuse(value, self._limits.too_deep())
        if isinstance(value, list):
            for index, item in enumerate(value):
                self._check(item, path.item(index), depth + 1)
        elif isinstance(value, dict):
            for key, item in value.items():
                if type(key) is not str:
                    raise path.keys().refuse(key, "JSON has str keys only; use the default codec")
                self._check(item, path.item(key), depth + 1)

    def _check_containers(self, text: bytes, path: str) -> None:
        allowed = self._limits.containers(len(text))
        if len(text) <= allowed or text.count(b"[") + text.count(b"{") <= allowed:
            return
        # The brackets may stand inside strings; only now is it worth the time to look.
        bare = _STRING.sub(b"", text)
        if bare.count(b"[") + bare.count(b"{") > allowed:
            raise CodecError(path, "json", self._limits.too_many(allowed))


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:50]} is too large for a float")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


class RawCodec:
    """Bytes as they are, for programs that encode by themselves."""

    name = "raw"

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def encode(self, obj: object) -> bytes:
        """The bytes of a bytes, bytearray or memoryview.

        Raises:
            CodecError: the object is none of these.
        """
        if not isinstance(obj, bytes | bytearray | memoryview):
            raise ROOT.refuse(obj, "the raw codec takes bytes, bytearray or memoryview only")
        return bytes(obj)

    def decode(self, payload: Buffer) -> bytes:
        """The payload as bytes. Never fails."""
        return bytes(payload)
