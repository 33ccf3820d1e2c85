"""Keys, queues, watches and locks on a store."""

from aiopg.keys._arguments import Items, Value
from aiopg.keys._lock import Lock
from aiopg.keys._space import LinkSpace, Space
from aiopg.keys._store import DEFAULT_TIMEOUT, AsyncStore
from aiopg.keys._watch import Watch
from aiopg.stores.keys import KeyEvent

__all__ = ["DEFAULT_TIMEOUT", "AsyncStore", "KeyEvent", "Items", "LinkSpace", "Lock", "Space", "Value", "Watch"]
