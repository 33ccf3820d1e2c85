"""The client's end of the road to a store server: find it, shake hands, carry a session over many connections."""

from aiopg.client._client import Client, Send
from aiopg.client._dial import GRACE_SECONDS, dial, dial_once
from aiopg.client._road import Road, take_road

__all__ = ["GRACE_SECONDS", "Client", "Road", "Send", "dial", "dial_once", "take_road"]
