"""The client's end of the road to a store server: find it, shake hands, carry a session."""

from aiopg.client._client import Client
from aiopg.client._dial import dial, dial_once

__all__ = ["Client", "dial", "dial_once"]
