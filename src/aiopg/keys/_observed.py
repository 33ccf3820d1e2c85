"""The keys of a program that has set up OpenTelemetry: each call is told of (`aiopg.telemetry`)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from aiopg.stores.keys import Following, KeyCall, Keys
from aiopg.telemetry import Telemetry, find_telemetry

__all__ = ["told_of"]

T = TypeVar("T")


def told_of(keys: Keys, **attributes: str | int) -> Keys:
    """These keys; where calls are to be told of, in a coat that does so. The attributes go with each call's span."""
    telemetry = find_telemetry()
    return keys if telemetry is None else _ObservedKeys(keys, telemetry, attributes)


class _ObservedKeys(Keys):
    """The same verbs, and each one a span."""

    def __init__(self, keys: Keys, telemetry: Telemetry, attributes: dict[str, str | int]) -> None:
        self._keys = keys
        self._telemetry = telemetry
        self._attributes = attributes

    async def _tell(self, call: KeyCall, verb: Awaitable[T]) -> T:
        observed = self._telemetry.begin(f"store.{call.op}", keys=len(call.keys), **self._attributes)
        try:
            result = await verb
        except BaseException as error:
            observed.end(error)
            raise
        observed.end(None)
        return result

    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        return await self._tell(call, self._keys.set(call, items, ttl=ttl, session=session))

    async def get(self, call: KeyCall) -> list[bytes]:
        return await self._tell(call, self._keys.get(call))

    async def wait(self, call: KeyCall) -> None:
        await self._tell(call, self._keys.wait(call))

    async def check(self, call: KeyCall) -> bool:
        return await self._tell(call, self._keys.check(call))

    async def add(self, call: KeyCall, amount: int) -> int:
        return await self._tell(call, self._keys.add(call, amount))

    async def append(self, call: KeyCall, value: bytes) -> int:
        return await self._tell(call, self._keys.append(call, value))

    async def compare_set(self, call: KeyCall, expected: bytes | None, desired: bytes) -> tuple[bool, bytes | None]:
        return await self._tell(call, self._keys.compare_set(call, expected, desired))

    async def delete(self, call: KeyCall) -> int:
        return await self._tell(call, self._keys.delete(call))

    async def count(self, call: KeyCall, prefix: str) -> int:
        return await self._tell(call, self._keys.count(call, prefix))

    async def push(self, call: KeyCall, value: bytes) -> int:
        return await self._tell(call, self._keys.push(call, value))

    async def pop(self, call: KeyCall, *, wait: bool) -> bytes:
        return await self._tell(call, self._keys.pop(call, wait=wait))

    async def length(self, call: KeyCall) -> int:
        return await self._tell(call, self._keys.length(call))

    async def meet(self, call: KeyCall) -> None:
        await self._tell(call, self._keys.meet(call))

    async def lock(self, call: KeyCall) -> int:
        return await self._tell(call, self._keys.lock(call))

    async def unlock(self, call: KeyCall, number: int) -> bool:
        return await self._tell(call, self._keys.unlock(call, number))

    def follow(self, prefix: str, after: int) -> Following:
        return self._keys.follow(prefix, after)

    # Last, as the name is that of the type of other verbs' results.
    async def list(self, call: KeyCall, prefix: str) -> list[str]:
        return await self._tell(call, self._keys.list(call, prefix))
