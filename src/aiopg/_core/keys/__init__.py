"""Key spaces: values by name, queues, meetings and locks, with all who wait for them. One small state machine each."""

from aiopg._core.keys.space import NO_KEYS, Owner, Room, Space

__all__ = ["NO_KEYS", "Owner", "Room", "Space"]
