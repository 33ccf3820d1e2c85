"""`aiopg token`, `aiopg serve --token-file`, and the token of `aiopg run`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, AuthenticationError
from aiopg.tokens import VARIABLE

from .programs import StartAiopg

ONE = "one token of the file, long enough"
TWO = "and another one, not any shorter.."


async def join(url: str, token: str, group: str = "default") -> None:
    """Be a member for a moment."""
    group_of_one = AsyncStatelessGroup.connect(url, rank=0, world_size=1, group=group, token=token, store_timeout=30.0)
    await (await group_of_one).close()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """A token file."""
    path.write_text(text.replace(ONE, ONE.replace(" ", "-")).replace(TWO, TWO.replace(" ", "-")))
    path.chmod(mode)
    return path


def spoken(token: str) -> str:
    """A token as it stands in a file, where spaces end words."""
    return token.replace(" ", "-")


def test_a_token_is_64_hexadecimal_digits_and_never_the_same(start: StartAiopg) -> None:
    """32 random bytes, one line, nothing else."""
    made = [start("token").finish() for _ in range(2)]
    assert all((code, err) == (0, b"") for code, _, err in made)
    first, second = (out.decode().strip() for _, out, _ in made)
    assert len(first) == 64
    assert bytes.fromhex(first) != bytes.fromhex(second)


async def test_a_file_of_tokens_says_who_may_join_what(start_on_each_loop: StartAiopg, tmp_path: Path) -> None:
    """One a line, each for the groups behind it; who knows none is refused."""
    file = write(tmp_path / "tokens", f"# ours\n{ONE}\n\n{TWO} tenant/* other  # theirs\n")
    url = start_on_each_loop("serve", "--token-file", str(file)).line()
    await join(url, spoken(ONE), "anything")
    await join(url, spoken(TWO), "tenant/a")
    with pytest.raises(AuthenticationError, match="not for group 'anything'"):
        await join(url, spoken(TWO), "anything")
    with pytest.raises(AuthenticationError, match="refuses"):
        await join(url, "not in the file, and long enough")


async def test_sighup_reads_the_tokens_again(start: StartAiopg, tmp_path: Path) -> None:
    """The new ones are accepted from then on, and the old ones are not; a file in disorder changes nothing."""
    file = write(tmp_path / "tokens", ONE)
    server = start("serve", "--token-file", str(file))
    url = server.line()
    write(file, TWO)
    server.send(signal.SIGHUP)
    assert server.error_line() == f"aiopg serve: 1 tokens from {file} are accepted from here on"
    await join(url, spoken(TWO))
    with pytest.raises(AuthenticationError):
        await join(url, spoken(ONE))
    assert "a login from 127.0.0.1 failed" in server.error_line()
    write(file, "short")
    server.send(signal.SIGHUP)
    assert server.error_line().startswith(f"aiopg serve: the tokens stay as they were: {file}, line 1: a token has")
    await join(url, spoken(TWO))
    server.send(signal.SIGTERM)
    assert server.code() == 0


@pytest.mark.parametrize(
    ("text", "mode", "complaint"),
    [
        (ONE, 0o604, "every user of this host can read"),
        ("# nothing\n", 0o600, "there is no token in"),
        ("short", 0o600, "line 1: a token has 16 bytes or more, not 5"),
        (f"{ONE}\n{ONE} a", 0o600, "two of the tokens have the same secret"),
        (f"{ONE} a*b", 0o600, "line 1: a token's groups are names"),
        (f"{ONE} expires=soon", 0o600, "line 1: Invalid isoformat"),
        (f"{ONE} expires=2030-01-01", 0o600, "line 1: a token's expiry needs a time zone"),
    ],
)
def test_a_file_in_disorder_is_refused_and_not_shown(
    start: StartAiopg, tmp_path: Path, text: str, mode: int, complaint: str
) -> None:
    """One line, code 2; whatever is wrong, no secret is in the text."""
    file = write(tmp_path / "tokens", text, mode)
    code, out, err = start("serve", "--token-file", str(file)).finish()
    assert (code, out) == (2, b"")
    assert complaint in err.decode()
    assert len(err.decode().splitlines()) == 1
    assert spoken(ONE) not in err.decode()


def test_a_token_file_that_is_not_there_is_said(start: StartAiopg, tmp_path: Path) -> None:
    """And nothing is served without it."""
    code, out, err = start("serve", "--token-file", str(tmp_path / "nowhere")).finish()
    assert (code, out) == (2, b"")
    assert b"No such file" in err


def test_an_address_for_everybody_needs_a_token_or_an_insecure(start: StartAiopg) -> None:
    """The text says how to go on."""
    code, out, err = start("serve", "--host", "0.0.0.0").finish()
    assert (code, out) == (2, b"")
    assert b"AIOPG_TOKEN" in err
    assert b"--insecure" in err
    server = start("serve", "--host", "0.0.0.0", "--insecure")
    assert server.line().startswith("aiopg://0.0.0.0:")
    server.send(signal.SIGTERM)
    assert server.code() == 0


async def test_the_ranks_of_a_run_have_a_token_that_others_do_not(start: StartAiopg, tmp_path: Path) -> None:
    """Each run makes its own, in the environment of its ranks alone."""
    program = (
        "import asyncio, os, aiopg\n"
        "async def main():\n"
        "    group = await aiopg.AsyncStatelessGroup.from_env()\n"
        f"    print(os.environ['{VARIABLE}'], os.environ['AIOPG_URL'], flush=True)\n"
        "    os.environ.pop('AIOPG_TOKEN')\n"
        "    try:\n"
        "        await aiopg.AsyncStatelessGroup.connect(os.environ['AIOPG_URL'], rank=0, world_size=1, group='x')\n"
        "    except aiopg.AuthenticationError as error:\n"
        "        print(error, flush=True)\n"
        "    await group.close()\n"
        "asyncio.run(main())\n"
    )
    code, out, err = start("run", "-n", "1", "--", sys.executable, "-c", program).finish()
    assert (code, err) == (0, b"")
    first, second = out.decode().splitlines()
    assert len(first.split()[1]) == 64
    assert "asks for a token" in second
