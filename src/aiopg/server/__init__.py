"""The store server: the asyncio shell round the engine, and the ways in which `create()` hosts one."""

from aiopg.server._server import StoreServer

__all__ = ["StoreServer"]
