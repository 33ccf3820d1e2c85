"""What one seed chooses before anything runs: who is there, which groups they form, what they mean to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from aiopg._core.limits import Limits

__all__ = ["COLLECTIVES", "FAULTS", "JOURNAL_FAULTS", "Group", "Mail", "Op", "Plan", "make_plan"]

COLLECTIVES = ("barrier", "all_gather", "broadcast", "gather", "scatter", "all_to_all", "all_reduce", "reduce")
WEIGHTS = (5, 3, 3, 2, 2, 2, 2, 1)
TAGS: tuple[int | str, ...] = (0, 7, "text")


@dataclass(frozen=True, slots=True)
class Op:
    """One collective, as all ranks are to call it."""

    op: str
    root: int
    detail: str
    size: int


@dataclass(frozen=True, slots=True)
class Mail:
    """What is sent from one rank to another: one filler size for each message."""

    src: int
    dst: int
    tag: int | str
    sizes: tuple[int, ...]


@dataclass(slots=True)
class Group:
    """One group: `slots[rank]` is the number of the process that is to hold the rank."""

    name: str
    slots: list[int]
    ttl: float
    ops: dict[int | str, list[Op]] = field(default_factory=dict)
    mail: list[Mail] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """All of it. Rates are probabilities, or numbers of faults in a run."""

    processes: int
    groups: list[Group]
    graces: list[float]
    limits: Limits
    lowered: frozenset[str]
    member_limits: Limits
    """Those that members keep by themselves."""
    latency: tuple[float, float]
    hurry: float
    """Share of calls with a short timeout."""
    cancels: float
    """Share of calls that are cancelled."""
    mistakes: float
    """Share of collectives that a rank mistakes for another one."""
    skips: float
    """Share of calls given up that are not made again."""
    moods: float
    """Share of members that leave early, abort, or fail."""
    faults: int
    weights: dict[str, float]
    horizon: float
    """Faults come within so many seconds."""
    journal: bool
    """Whether the store keeps one."""
    rotate_bytes: int
    """When it makes a snapshot, see `aiopg._core.compaction`."""
    backlog_bytes: int
    """When its members have to wait for its disk."""


def make_plan(random: Random, *, journal: bool) -> Plan:
    """The plan of a seed."""
    processes = random.choice((2, 2, 2, 3, 3, 3, 4, 4, 5, 6))
    limits, lowered = _limits(random)
    count = random.choice((1, 1, 1, 2, 2, 3)) if processes < 5 else 1
    quick = random.random() < 0.25
    groups = [_group(random, f"g{n}", processes, 6 // (count * processes) + 1, quick) for n in range(count)]
    plan = Plan(
        processes=processes,
        groups=groups,
        graces=[random.choice((0.3, 1.0, 2.0, 5.0)) for _ in range(processes)],
        limits=limits,
        lowered=lowered,
        member_limits=Limits(outbox_frames=random.randint(2, 8)) if random.random() < 0.1 else Limits(),
        latency=random.choice(((0.0001, 0.005), (0.0001, 0.005), (0.0, 0.0), (0.001, 0.05))),
        hurry=random.choice((0.0, 0.1, 0.3, 0.5)),
        cancels=random.choice((0.0, 0.1, 0.3, 0.5)),
        mistakes=random.choice((0.0, 0.0, 0.0, 0.1)),
        skips=random.choice((0.0, 0.1, 0.4)),
        moods=random.choice((0.0, 0.0, 0.1, 0.3)),
        faults=random.choice((0, 1, 2, 3, 5, 8, 12)),
        weights=_weights(random),
        horizon=random.choice((0.1, 0.5, 2.0, 6.0)),
        journal=journal,
        rotate_bytes=random.choice((300, 3_000, 30_000)) if journal else 0,
        backlog_bytes=random.choice((500, 20_000, 1_000_000)) if journal else 0,
    )
    for name, weight in JOURNAL_FAULTS.items() if journal else ():
        plan.weights[name] = plan.weights.get(name, 0.0) + weight
    return plan


FAULTS = {
    "cut": 6.0, "storm": 2.0, "half_open": 1.5, "stall": 2.0, "freeze": 1.5, "pause_member": 1.5, "pause_server": 1.0,
    "refuse": 1.0, "away": 1.0, "kill": 1.5, "crash": 0.3, "intrude": 0.7, "ambush": 1.0,
}  # fmt: skip


JOURNAL_FAULTS = {"crash": 1.5, "crash_at_snapshot": 1.0, "disk_fails": 0.5, "slow_disk": 0.5}
"""Where the store keeps a journal, these come more often."""


def _weights(random: Random) -> dict[str, float]:
    """How likely each kind of fault is: now and then one kind has it all."""
    if random.random() < 0.2:
        return {random.choice(sorted(FAULTS)): 1.0}
    return {name: weight * random.random() for name, weight in FAULTS.items()}


def _limits(random: Random) -> tuple[Limits, frozenset[str]]:
    if random.random() < 0.65:
        return Limits(), frozenset()
    low: dict[str, Any] = {
        "outbox_frames": random.randint(12, 40),
        "retained_bytes": random.choice((20_000, 100_000)),
        "group_bytes": random.choice((2_000, 50_000, 200_000)),
        "store_bytes": random.choice((60_000, 200_000)),
        "waiting_calls": random.randint(2, 8),
        "payload_bytes": random.choice((3_000, 50_000)),
        "mailbox_messages": random.randint(1, 3),
        "group_messages": random.randint(1, 6),
        "open_rounds": random.randint(1, 2),
        "groups": random.randint(1, 2),
        "seats": 1,
        "sessions": random.randint(1, 3),
        "output_bytes": random.choice((20_000, 100_000)),
    }
    names = random.sample(sorted(low), random.choice((1, 1, 2, 3)))
    chosen = {name: low[name] for name in names}
    if "output_bytes" in chosen:  # it is looked at only past the other one
        chosen["retained_bytes"] = chosen["output_bytes"]
    return Limits(**chosen), frozenset(chosen)


def _group(random: Random, name: str, processes: int, share: int, quick: bool) -> Group:
    size = random.randint(min(2, processes), processes)
    slots = random.sample(range(processes), size)
    ttl = random.choice((0.3, 1.0, 2.0)) if quick else 3600.0
    group = Group(name, slots, ttl)
    for tag in random.sample(TAGS, random.choice((0, 1, 1, 2))):
        group.ops[tag] = [_op(random, size) for _ in range(random.randint(1, 1 + 2 * share))]
    for _ in range(random.randint(0 if group.ops else 1, 1 + share)):
        src, dst = random.sample(range(size), 2)
        tag = random.choice(TAGS)
        if all((mail.src, mail.dst, mail.tag) != (src, dst, tag) for mail in group.mail):
            sizes = tuple(_size(random) for _ in range(random.randint(1, 5)))
            group.mail.append(Mail(src, dst, tag, sizes))
    return group


def _op(random: Random, size: int) -> Op:
    (op,) = random.choices(COLLECTIVES, WEIGHTS)
    root = random.randrange(size) if op in ("broadcast", "gather", "scatter", "reduce") else -1
    detail = random.choice(("sum", "max")) if op in ("all_reduce", "reduce") else ""
    return Op(op, root, detail, _size(random))


def _size(random: Random) -> int:
    draw = random.random()
    if draw < 0.7:
        return random.randint(0, 100)
    if draw < 0.9:
        return random.randint(100, 3000)
    return random.randint(3000, 40_000) if draw < 0.98 else random.randint(40_000, 200_000)
