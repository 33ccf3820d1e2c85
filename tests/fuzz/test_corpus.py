"""What was once found is found no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzzer import check, one_at_a_time
from tests.fuzz.targets import TARGETS
from tests.fuzz.workers import CORPUS

STORED = sorted(CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_that_found_a_bug_finds_it_no_more(path: Path) -> None:
    """Each in the directory of its target, by its hash."""
    with one_at_a_time():
        finding, _ = check(TARGETS[path.parent.name](), path.read_bytes())
    assert finding is None, finding.what


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_target_begins_with_is_in_order(name: str) -> None:
    """All that is well-formed, and what takes long: depth, lying lengths, 10,000 tags."""
    target = TARGETS[name]()
    with one_at_a_time():
        for data in (*target.large(), *target.seeds()):
            finding, _ = check(target, data)
            assert finding is None, finding.what


def test_the_corpus_holds_nothing_that_no_run_reads() -> None:
    """Only directories of targets."""
    assert {path.parent.name for path in STORED} <= TARGETS.keys()
