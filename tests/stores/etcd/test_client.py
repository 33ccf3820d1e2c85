"""The client of etcd by itself, on a real etcd: each request, and what it does when things break."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from aiopg.errors import GroupClosedError, StoreFullError, StoreUnreachableError
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._endpoints import ATTEMPT_SECONDS
from aiopg.stores.etcd._errors import CompactedError, LeaseGoneError, RefusedError
from aiopg.stores.etcd._messages import (
    Delete,
    Deleted,
    Found,
    Get,
    Op,
    Put,
    PutDone,
    absent,
    created_at,
    modified_at,
    one,
    present,
    unchanged_since,
    under,
)
from aiopg.stores.etcd._wire import string
from aiopg.testing.proxy import FaultProxy

from .clusters import EtcdCluster
from .keys import ON_ASYNCIO, ON_UVLOOP, a_call_is_under_way, all_calls_ended, own
from .servers import SLOW, EtcdServer


class TestRequests:
    async def test_what_is_put_is_found_with_its_revisions(self, client: EtcdClient) -> None:
        """Put tells its revision; range tells the value, when it was made, written last, and how often."""
        key = own() + b"a"
        first = await client.put(key, b"1")
        second = await client.put(key, b"2")
        found = await client.range(one(key))
        (entry,) = found.entries
        assert (entry.key, entry.value, entry.create_revision, entry.mod_revision) == (key, b"2", first, second)
        assert (entry.version, entry.lease) == (2, 0)
        assert found.revision == second
        (before,) = (await client.range(one(key), revision=first)).entries
        assert before.value == b"1"

    async def test_a_range_of_any_size_is_read_at_one_revision(self, client: EtcdClient) -> None:
        """More keys than are read at a time come all, in order, and nothing outside of the prefix."""
        prefix = own()
        keys = [prefix + b"%03d" % number for number in range(150)]
        for some in (keys[:75], keys[75:]):  # etcd takes 128 operations in a transaction
            await client.txn([], [Put(key, b"v" + key) for key in some])
        await client.put(prefix[:-1] + b"0", b"behind all that begins so")
        found = await client.range(under(prefix))
        assert [entry.key for entry in found.entries] == keys
        assert all(entry.value == b"v" + entry.key for entry in found.entries)
        names = await client.range(under(prefix), keys_only=True)
        assert [(entry.key, entry.value) for entry in names.entries] == [(key, b"") for key in keys]

    async def test_delete_counts(self, client: EtcdClient) -> None:
        """Delete takes the keys of a span, one or many, and says how many there were."""
        prefix = own()
        await client.txn([], [Put(prefix + b"%d" % number, b"") for number in range(5)])
        assert (await client.delete(one(prefix + b"3"))).count == 1
        assert (await client.delete(under(prefix))).count == 4
        assert (await client.range(under(prefix))).entries == []

    async def test_a_transaction_answers_each_operation(self, client: EtcdClient) -> None:
        """`then` is done at one revision and answered in order; empty values and empty answers included."""
        prefix = own()
        await client.put(prefix + b"old", b"x")
        then: list[Op] = [
            Put(prefix + b"new", b""),
            Delete(one(prefix + b"old")),
            Get(under(prefix)),
            Get(one(prefix + b"no")),
        ]
        result = await client.txn([absent(one(prefix + b"new"))], then)
        put, deleted, found, nothing = result.answers
        assert result.succeeded
        assert not result.resent
        assert put == PutDone(result.revision)
        assert deleted == Deleted(result.revision, 1)
        assert isinstance(found, Found)
        assert [(entry.key, entry.value) for entry in found.entries] == [(prefix + b"new", b"")]
        assert nothing == Found(result.revision, [])

    async def test_each_compare_says_what_it_is_named_for(self, client: EtcdClient) -> None:
        """Each compare holds where it should, and does not where not: then `orelse` is done."""
        prefix, key = own(), b""
        key, empty = prefix + b"a", prefix + b"empty/"
        made = await client.put(key, b"1")
        written = await client.put(key, b"2")
        cases = [
            (absent(one(key)), False),
            (absent(one(prefix + b"b")), True),
            (absent(under(prefix)), False),
            (absent(under(empty)), True),
            (present(key), True),
            (present(prefix + b"b"), False),
            (created_at(key, made), True),
            (created_at(key, written), False),
            (modified_at(key, written), True),
            (modified_at(key, made), False),
            (modified_at(prefix + b"b", 0), True),
            (unchanged_since(under(prefix), written), True),
            (unchanged_since(under(prefix), made), False),
            (unchanged_since(under(empty), 1), True),
        ]
        for compare, holds in cases:
            result = await client.txn([present(key), compare], [Get(one(key))], [Put(empty[:-1], b"no")])
            assert result.succeeded is holds, compare
            assert isinstance(result.answers[0], Found if holds else PutDone)
            await client.delete(one(empty[:-1]))

    async def test_a_transaction_that_only_reads_is_refused(self, client: EtcdClient) -> None:
        """Some etcds die of it: ValueError, before anything is sent."""
        with pytest.raises(ValueError, match="use range"):
            await client.txn([], [Get(one(own()))], [])

    async def test_status_says_who_leads(self, client: EtcdClient) -> None:
        """Status tells of the member that answers, and which one leads."""
        status = await client.status()
        assert status.version.startswith("3.")
        assert status.leader == status.member != 0
        assert status.db_bytes > 0
        assert status.errors == []


class TestRefusals:
    async def test_a_request_that_is_too_large_is_refused_with_its_size(self, client: EtcdClient) -> None:
        """What etcd will never take raises RefusedError, and the client goes on."""
        with pytest.raises(RefusedError, match=r"the request has 2000\d\d\d bytes"):
            await client.put(own() + b"large", bytes(2_000_000))
        await client.status()

    async def test_a_revision_that_was_compacted_is_told(self, client: EtcdClient) -> None:
        """Reading at a revision that is not kept any more raises CompactedError."""
        key = own() + b"a"
        first = await client.put(key, b"1")
        await client.compact(await client.put(key, b"2"))
        with pytest.raises(CompactedError):
            await client.range(one(key), revision=first)
        assert [entry.value for entry in (await client.range(one(key))).entries] == [b"2"]

    async def test_a_lease_that_is_gone_is_told(self, client: EtcdClient) -> None:
        """A put with a lease that there is not raises LeaseGoneError, alone and in a transaction."""
        with pytest.raises(LeaseGoneError):
            await client.put(own() + b"a", b"", lease=4711)
        with pytest.raises(LeaseGoneError):
            await client.txn([], [Put(own() + b"a", b"", lease=4711)])

    @ON_ASYNCIO
    async def test_a_full_etcd_is_told(self, tmp_path: Path) -> None:
        """Past the quota of its space etcd refuses writes: StoreFullError. Reading goes on."""
        server = EtcdServer(tmp_path, "--quota-backend-bytes", "4000000")
        await asyncio.to_thread(server.start)
        try:
            async with await EtcdClient.connect([server.endpoint], timeout=10 * SLOW) as client:

                async def fill() -> None:
                    for number in range(100):
                        await client.put(b"%d" % number, bytes(1_000_000))

                with pytest.raises(StoreFullError, match="quota-backend-bytes"):
                    await fill()
                assert (await client.range(one(b"0"))).entries
        finally:
            await asyncio.to_thread(server.kill)


class TestConnecting:
    async def test_nobody_there(self) -> None:
        """Where no endpoint answers, StoreUnreachableError comes in time and says what the last attempt met."""
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            endpoint = f"127.0.0.1:{reserved.getsockname()[1]}"
            began = time.monotonic()
            with pytest.raises(StoreUnreachableError, match=f"etcd://{endpoint}.*UNAVAILABLE"):
                await EtcdClient.connect([endpoint], timeout=0.3)
        assert time.monotonic() - began < 10 * SLOW

    async def test_one_of_several_is_enough(self, etcd_server: EtcdServer) -> None:
        """Endpoints that refuse are passed over."""
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            dead = f"127.0.0.1:{reserved.getsockname()[1]}"
            async with await EtcdClient.connect([dead, etcd_server.endpoint], timeout=10 * SLOW) as client:
                assert client.endpoint == etcd_server.endpoint

    @pytest.mark.parametrize("endpoints", [[], ["localhost"], ["http://localhost:2379"], ["a:0"], [":1"], "a:2379"])
    async def test_bad_endpoints(self, endpoints: list[str]) -> None:
        """An endpoint is 'host:port': whatever is not is a ValueError that says so, at once."""
        with pytest.raises(ValueError, match="host:port"):
            await EtcdClient.connect(endpoints, timeout=1)

    async def test_a_context_of_ssl_is_of_no_use(self) -> None:
        """gRPC takes no ssl.SSLContext: the error says what to give instead."""
        context = ssl.create_default_context()
        with pytest.raises(TypeError, match=r"give aiopg\.Tls"):
            await EtcdClient.connect(["a:1"], timeout=1, tls=context)  # type: ignore[arg-type]

    async def test_without_grpcio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra the error has the line that installs it."""
        monkeypatch.setitem(sys.modules, "grpc", None)
        with pytest.raises(ImportError, match=r"pip install 'aiopg-group\[etcd\]'"):
            await EtcdClient.connect(["a:1"], timeout=1)


class TestClosing:
    async def test_what_waits_is_told(self, own_etcd: EtcdServer) -> None:
        """Requests and reads under way, and later ones, raise GroupClosedError when the client is closed."""
        client = await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW)
        own_etcd.pause()
        put = asyncio.ensure_future(client.put(b"a", b""))
        read = asyncio.ensure_future(anext(client.watch(one(b"a"), 1)))
        await asyncio.sleep(0.05)
        await client.close()
        await client.close()
        for waiting in (put, read):
            with pytest.raises(GroupClosedError):
                await waiting
        with pytest.raises(GroupClosedError):
            await client.status()

    async def test_closing_that_is_cancelled(self, etcd_server: EtcdServer) -> None:
        """A close that is cancelled at once has closed all the same."""
        client = await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW)
        lease = await client.lease(60)
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        async with asyncio.timeout(10 * SLOW):
            await lease.close()
        with pytest.raises(GroupClosedError):
            await client.status()


class TestFailures:
    @ON_UVLOOP
    async def test_requests_go_on_while_members_die(self, cluster: EtcdCluster) -> None:
        """Transactions that say "if this key is not there" take effect once each, whoever dies meanwhile."""
        prefix, made = own(), []
        leader = await cluster.leader()
        at_first = [leader.endpoint, *(endpoint for endpoint in cluster.endpoints if endpoint != leader.endpoint)]
        async with await EtcdClient.connect(at_first, timeout=10 * SLOW) as client:

            async def make(writer: int) -> None:
                for number in range(15):
                    key = prefix + b"%d/%03d" % (writer, number)
                    result = await client.txn([absent(one(key))], [Put(key, b"")], [Get(one(key))])
                    assert result.succeeded or result.resent
                    made.append(key)
                    if len(made) == 20:
                        await asyncio.to_thread(leader.kill)

            async with asyncio.timeout(30 * SLOW), asyncio.TaskGroup() as tasks:
                for writer in range(4):
                    tasks.create_task(make(writer))
            found = (await client.range(under(prefix))).entries
        assert [entry.key for entry in found] == sorted(made)
        assert all(entry.version == 1 for entry in found)

    async def test_an_answer_that_is_lost(self, etcd_server: EtcdServer, client: EtcdClient) -> None:
        """A transaction whose answer does not come is sent again; that it had taken effect is told by `resent`."""
        key = own() + b"a"
        with client.watch(one(key), await client.put(own(), b"") + 1) as watch:
            async with FaultProxy(f"aiopg://{etcd_server.endpoint}") as proxy:
                endpoints = [proxy.address.removeprefix("aiopg://"), etcd_server.endpoint]
                async with await EtcdClient.connect(endpoints, timeout=10 * SLOW) as other:
                    proxy.delay(0.5)
                    sent = asyncio.ensure_future(other.txn([absent(one(key))], [Put(key, b"1")], [Get(one(key))]))
                    await anext(watch)
                    proxy.cut()
                    result = await sent
        assert (result.succeeded, result.resent) == (False, True)
        (found,) = result.answers
        assert isinstance(found, Found)
        assert [entry.version for entry in found.entries] == [1]

    @ON_UVLOOP
    async def test_a_member_that_is_stopped_is_left(self, cluster: EtcdCluster) -> None:
        """One that takes requests and answers none is left after some seconds."""
        key = own() + b"a"
        member = next(member for member in cluster.members if member is not cluster.members[0])
        async with await EtcdClient.connect(
            [member.endpoint, cluster.members[0].endpoint], timeout=10 * SLOW
        ) as client:
            member.pause()
            async with asyncio.timeout(30 * SLOW):
                await client.put(key, b"")
            assert client.endpoint == cluster.members[0].endpoint

    @ON_ASYNCIO
    async def test_an_etcd_that_comes_back_goes_on(self, own_etcd: EtcdServer) -> None:
        """Where there is one endpoint only, requests wait for it."""
        async with await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW) as client:
            await client.put(b"a", b"1")
            await asyncio.to_thread(own_etcd.kill)
            put = asyncio.ensure_future(client.put(b"a", b"2"))
            await asyncio.to_thread(own_etcd.start)
            async with asyncio.timeout(30 * SLOW):
                await put
            assert (await client.range(one(b"a"))).entries[0].value == b"2"


class TestCancelling:
    def test_a_loop_that_is_closed_disturbs_no_other(self, etcd_server: EtcdServer) -> None:
        """Loops that are closed right behind a cancelled request and watch: nothing is heard of it in other loops."""
        complaints: list[dict[str, object]] = []

        async def leave_in_a_hurry() -> None:
            client = await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW)
            waiting = [client.put(own(), b""), anext(client.watch(one(own()), await client.put(own(), b"") + 1))]
            tasks = [asyncio.ensure_future(one) for one in waiting]
            await asyncio.sleep(0.002)
            for task in tasks:
                task.cancel()
            client._requests.shut()

        async def other() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW) as client:
                for _ in range(30):
                    await asyncio.to_thread(asyncio.run, leave_in_a_hurry())
                    await client.status()

        asyncio.run(other())
        assert complaints == []

    async def test_etcd_hears_of_a_cancelled_request(self, own_etcd: EtcdServer) -> None:
        """A call that etcd would answer only much later ends there when it is cancelled here."""
        async with await EtcdClient.connect([own_etcd.endpoint], timeout=10 * SLOW) as client:
            lock, name = "/v3lockpb.Lock/Lock", string(1, b"lock")
            await client._requests.send(lock, name)
            waiting = asyncio.ensure_future(client._requests.send(lock, name))
            await a_call_is_under_way(own_etcd, 10 * SLOW)
            waiting.cancel()
            await asyncio.wait([waiting])
            await all_calls_ended(own_etcd, ATTEMPT_SECONDS - 0.3)

    async def test_connecting_can_be_cancelled_anywhere(self, etcd_server: EtcdServer) -> None:
        """No task is left, and the next one connects."""
        for steps in range(20):
            task = asyncio.ensure_future(EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                await task.result().close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_request_cancelled_anywhere_leaves_nothing_behind(self, etcd_server: EtcdServer) -> None:
        """Cancel each request after 0, 1, 2... steps of the loop: the next ones are right, no task and no call is
        left, and each transaction took effect whole or not at all."""
        prefix = own()
        async with await EtcdClient.connect([etcd_server.endpoint], timeout=10 * SLOW) as client:
            key, other = prefix + b"a", prefix + b"b"
            calls = [
                partial(client.put, key, b"1"),
                partial(client.range, under(prefix)),
                partial(client.delete, one(prefix + b"c")),
                partial(client.txn, [], [Put(key, b"2"), Put(other, b"2")]),
                client.status,
            ]
            cancelled = 0
            for steps in range(60):
                for call in calls:
                    task = asyncio.ensure_future(call())  # type: ignore[operator]
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    cancelled += task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled() or task.exception() is None
                written = {entry.key: entry.mod_revision for entry in (await client.range(under(prefix))).entries}
                assert written.get(other, 0) <= written.get(key, 0)
            assert cancelled > 30
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert client._requests.endpoints._to_tell == set()
            await all_calls_ended(etcd_server, 10 * SLOW)
