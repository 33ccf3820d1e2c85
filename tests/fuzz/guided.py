"""The same targets under Atheris, which sees what lines of the product ran. It is slower, and nobody needs it: it comes
upon other inputs than ours, and what it finds is replayed by ours. After `pip install atheris`:

    python -m tests.fuzz.guided TARGET [options of libFuzzer, such as -max_total_time=60]
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["aiopg"]):
    from tests.fuzz.fuzzer import check, one_at_a_time
    from tests.fuzz.mutate import LONGEST
    from tests.fuzz.targets import TARGETS
    from tests.fuzz.workers import corpus, keep

__all__ = ["main"]

FOUND = Path(".fuzz")


def main(name: str, *options: str) -> None:
    """Does not return: libFuzzer ends the process."""
    target = TARGETS[name]()
    known = FOUND / "guided" / name
    for data in (*target.seeds(), *corpus(name)):
        keep(known, data)

    def one(data: bytes) -> None:
        finding, _ = check(target, data, measured=False)
        if finding is not None:
            path = keep(FOUND / name, data)
            print(f"{finding.what}\nreplay: python -m tests.fuzz --target {name} --replay {path}", flush=True)
            raise AssertionError(finding.kind)

    # The seeds stand last: the first directory is where libFuzzer keeps what it comes upon.
    own = known.with_name(f"{name}-found")
    own.mkdir(parents=True, exist_ok=True)
    atheris.Setup([name, f"-max_len={LONGEST}", *options, str(own), str(known)], one)
    with one_at_a_time():
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
