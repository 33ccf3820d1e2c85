"""Messages between two ranks."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from aiopg.codec import LARGE_BYTES, is_large
from aiopg.errors import GroupTimeoutError
from aiopg.group._base import GroupBase, entry_text
from aiopg.stores.base import Buffer, Call, Member, Tag

__all__ = ["Messages"]


class Messages(GroupBase):
    """send and recv. See `AsyncStatelessGroup`."""

    async def send(self, obj: Any, dst: int, *, tag: Tag = 0, timeout: float | None = None) -> None:
        """Send an object to rank `dst`; done when the store holds it, received or not.

        Messages from one rank to another with one tag arrive in the order in which they were sent.

        Cancelling takes the message back unless `dst` has received it. Sending the same object again to the same
        rank and tag is then the same call again: it arrives exactly once either way.

        A large object (`aiopg.codec.is_large`: over 4 MiB) is encoded in a worker thread: do not change it until the
        call has returned. Its payload is kept, beside it, until the store has all of it.

        Args:
            obj: anything the group's codec encodes.
            dst: rank to send to; not this one.
            tag: messages of one tag do not meet those of another; an int or a short text.
            timeout: seconds; the group's store_timeout if not given, `math.inf` for none.

        Raises:
            ValueError: dst is no other rank of the group, or timeout is not over 0.
            CodecError: the object has no encoding.
            PayloadTooLargeError: the encoded object is over the store's limit; nothing was sent.
            PeerLostError: dst has left the group or is lost.
            StoreFullError: too much waits to be received.
            GroupTimeoutError: the store did not accept it in time.
            GroupAbortedError, GroupClosedError, StoreLostError.
        """
        self._check_other("dst", dst)
        payload = None if is_large(obj) else self._encode(obj)
        if payload is not None and len(payload) > self._payload_bytes:
            self._check_size((payload,))
        counted = ("send", dst)
        call = self._new_call("send", tag, timeout, counted)
        try:
            if payload is None or self._lanes:
                await self._put_in_turn(call, counted, obj, payload)
            else:
                member = self._member
                if member is None or self._in_line:
                    member = await self._join(call)
                await member.put(call, dst, (payload,))
        except BaseException as error:
            self._give_up(counted, call, error)
            raise
        self._end(call)
        self._sent[dst] += 1
        self.entries.append((entry_text(f"send to {dst}", tag), monotonic()))

    async def recv(self, src: int, *, tag: Tag = 0, timeout: float | None = None) -> Any:
        """Receive the next object that rank `src` sent here with this tag.

        Cancelling and a timeout lose nothing: a message that was not returned is what the next recv returns.

        Args:
            src: rank to receive from; not this one.
            tag: the sender's tag.
            timeout: seconds; the group's store_timeout if not given, `math.inf` for none.

        Raises:
            ValueError: src is no other rank of the group, or timeout is not over 0.
            GroupTimeoutError: nothing came in time; `.missing` is `(src,)`.
            PeerLostError: src is gone and everything that it sent here was received.
            DataExpiredError: the message waited longer than its sender's data_expiration_seconds; raised once in
                its place, the next recv gets the next one.
            CodecError: the message's bytes are no object for this group's codec; the message is used up.
            GroupAbortedError, GroupClosedError, StoreLostError.
        """
        self._check_other("src", src)
        counted = ("recv", src)
        call = self._new_call("recv", tag, timeout, counted)
        try:
            member = self._member
            if member is None or self._in_line:
                member = await self._join(call)
            payload = await member.take(call, src)
        except BaseException as error:
            self._give_up(counted, call, error)
            raise
        if len(payload) > LARGE_BYTES:
            return await self._decode_large(call, counted, member, payload)
        self._end(call)
        self._received[src] += 1
        return self._decode(payload)

    send_obj = send
    recv_obj = recv

    async def _put_in_turn(self, call: Call, counted: tuple[str, int], obj: object, payload: Buffer | None) -> None:
        """Put where a large object is on its way to the mailbox, or is to go there: it is encoded here."""
        _, dst = counted
        async with self._lanes.turn(call, (dst, call.tag)):
            if payload is None:
                (payload,) = await self._encode_aside(call, counted, (obj,))
            member = self._member
            if member is None or self._in_line:
                member = await self._join(call)
            await member.put(call, dst, (payload,))

    async def _decode_large(self, call: Call, counted: tuple[str, int], member: Member, payload: Buffer) -> Any:
        """The object of a message that was taken. Until it is returned the message can still go back."""
        _, src = counted
        try:
            obj = await self._aside.run(call, self._decode, payload)
        except (asyncio.CancelledError, GroupTimeoutError) as error:
            member.give_back(src, call.tag, payload)
            self._give_up(counted, call, error)
            raise
        except BaseException as error:
            self._end(call, error)
            self._received[src] += 1
            raise
        self._end(call)
        self._received[src] += 1
        return obj

    def _check_other(self, what: str, rank: int) -> None:
        self._check_peer(what, rank)
        if rank == self.rank:
            raise ValueError(f"{what} must be another rank than this one ({rank})")
