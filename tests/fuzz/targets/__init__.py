"""The five targets."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.target import Target
from tests.fuzz.targets.codec import CodecTarget
from tests.fuzz.targets.engine import EngineTarget
from tests.fuzz.targets.frames import FramesTarget
from tests.fuzz.targets.handshake import HandshakeTarget
from tests.fuzz.targets.journal import JournalTarget

__all__ = ["TARGETS"]

TARGETS: dict[str, Callable[[], Target]] = {
    target.name: target for target in (FramesTarget, HandshakeTarget, EngineTarget, CodecTarget, JournalTarget)
}
