"""Who may look: tokens, cookies, hosts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from aiopg import Token
from aiopg.observe.http import _access
from aiopg.observe.http._access import Access

ALL = Token("the token for all groups")
SOME = Token("the token for some groups", ("train-*",))


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


def test_a_token_lets_in_to_its_groups() -> None:
    """Who says a token sees the groups that it is for; who says another text, or nothing, sees none."""
    access = Access((ALL, SOME))
    assert access.scope(bearer(ALL.secret), None) == ("*",)
    assert access.scope(bearer(SOME.secret), None) == ("train-*",)
    for said in (
        None,
        "",
        bearer(""),
        bearer(ALL.secret[:-1]),
        ALL.secret,
        f"Basic {ALL.secret}",
        bearer("x" * 100_000),
    ):
        assert access.scope(said, None) is None, said


def test_without_tokens_everybody_may_look() -> None:
    """A store that asks nobody for a token shows itself to everybody."""
    assert Access().scope(None, None) == ("*",)


def test_an_expired_token_is_none() -> None:
    """A token's expiry holds here as it does for members."""
    over = Token("the token that expired", expires=datetime.now(UTC) - timedelta(seconds=1))
    assert Access((ALL, over)).scope(bearer(over.secret), None) is None


def test_a_cookie_stands_for_its_token_and_does_not_hold_it() -> None:
    """A cookie lets in as its token does, is good for this process alone, and tells nothing of the token."""
    access = Access((ALL, SOME), port=9300)
    value = access.make_cookie(SOME)
    assert SOME.secret not in value
    assert access.scope(None, f"other=1; aiopg_9300={value}") == ("train-*",)
    assert Access((ALL, SOME), port=9300).scope(None, f"aiopg_9300={value}") is None
    assert access.scope(None, f"aiopg_9301={value}") is None


def test_odd_cookies_of_other_programs_on_the_host_do_no_harm() -> None:
    """A browser sends them too: it knows hosts, and no ports."""
    access = Access((ALL,), port=1)
    others = ('theme={"a": "b"}', "naïve=é", "[x]=1", "alone", "large=" + "x" * 5000)
    assert access.scope(None, "; ".join((*others, f"aiopg_1={access.make_cookie(ALL)}"))) == ("*",)


@pytest.mark.parametrize("change", ["later", "proof", "empty", "no number", "not ascii", "escaped", "long"])
def test_a_cookie_that_was_changed_is_none(change: str) -> None:
    """Neither the time in it nor the proof can be made up."""
    access = Access((ALL,), port=1)
    until, _, proof = access.make_cookie(ALL).partition(".")
    changed = {
        "later": f"{int(until) + 1}.{proof}",
        "proof": f"{until}.{'0' * 64}",
        "empty": "",
        "no number": f"soon.{proof}",
        "not ascii": f"{until}.é",
        "escaped": f'"{until}.\\351"',  # which is an é to who reads cookies
        "long": f"{until}.{proof}{'0' * 10_000}",
    }[change]
    assert access.scope(None, f"aiopg_1={changed}") is None


def test_a_cookie_ends_with_its_time_and_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is good for a working day, and no longer than its token is."""
    access = Access((ALL, SOME), port=1)
    cookies = {token: f"aiopg_1={access.make_cookie(token)}" for token in (ALL, SOME)}
    access.tokens = (ALL,)
    assert access.scope(None, cookies[ALL]) == ("*",)
    assert access.scope(None, cookies[SOME]) is None
    later = time.monotonic() + _access.COOKIE_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert access.scope(None, cookies[ALL]) is None


def test_a_wrong_header_is_not_made_good_by_a_cookie() -> None:
    """Who says who he is, is that: a wrong token beside a good cookie is a wrong token."""
    access = Access((ALL,), port=1)
    assert access.scope(bearer("something else altogether"), f"aiopg_1={access.make_cookie(ALL)}") is None


def test_wrong_tokens_of_one_address_are_told_so_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten in a second; other addresses are not concerned; in the next second it is told again."""
    access, now = Access((ALL,)), 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert [access.failed("192.0.2.1") for _ in range(12)] == [True] * 10 + [False] * 2
    assert access.failed("192.0.2.2")
    now += 1
    assert access.failed("192.0.2.1")


@pytest.mark.parametrize(
    ("host", "is_meant"),
    [
        ("127.0.0.1:9300", True), ("localhost:9300", True), ("[::1]:9300", True), ("10.1.2.3", True),
        ("store.example:9300", True), ("STORE.example", True),
        ("evil.example:9300", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example:9300", False),
        ("", False),
    ],
)  # fmt: skip
def test_without_tokens_a_strangers_name_for_our_address_is_refused(host: str, is_meant: bool) -> None:
    """A web page may have its name resolve to an address of this host; what it may read then is nothing."""
    assert Access((), "store.example").is_meant(host) is is_meant
    assert Access((ALL,), "store.example").is_meant(host), "with tokens a browser has no cookie for that name"
