"""Groups and stores for programs that block."""

from aiopg.sync._group import StatelessGroup
from aiopg.sync._lock import BlockingLock
from aiopg.sync._store import Store
from aiopg.sync._watch import BlockingWatch

__all__ = ["BlockingLock", "BlockingWatch", "StatelessGroup", "Store"]
