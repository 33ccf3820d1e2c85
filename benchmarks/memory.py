"""What fits into the memory: a run that swaps, or is killed in the middle, measures nothing."""

from pathlib import Path

SPARE_MEBIBYTES = 2048
"""What must be left for the system, the stores, and payloads under way."""


def available() -> int | None:
    """Return how many MiB new processes can have, where the kernel tells it."""
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) // 1024
    return None


def lacking(mebibytes: int) -> str | None:
    """Return why so much more does not fit; None where it does, or where nobody knows."""
    free = available()
    if free is None or mebibytes + SPARE_MEBIBYTES <= free:
        return None
    return (
        f"its processes take about {mebibytes:,} MiB, and of {free:,} MiB that are free {SPARE_MEBIBYTES:,} are spared"
    )
