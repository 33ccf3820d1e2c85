"""The page of the side port in a real browser: who is awaited is seen, by everybody, and nothing else gets in."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import pytest

from aiopg import AsyncStore
from tests.children import children
from tests.cli.programs import Program

from .browser import Browser
from .scenes import HOSTILE

SLOW = float(os.environ.get("AIOPG_TEST_SLOW", "1"))

TOKEN = "the-token-of-these-tests"

StartScene: TypeAlias = Callable[..., None]


class Wall:
    """A store with its page, and the browser that shows it."""

    def __init__(self, url: str, page: str, browser: Browser) -> None:
        self.url = url
        self.page = page
        self.browser = browser

    def put(self, key: str) -> None:
        """Tell the members something: set a key of the store."""
        asyncio.run(self._put(key))

    async def _put(self, key: str) -> None:
        async with await AsyncStore.connect(self.url, token=TOKEN) as store:
            await store.set(key, b"")

    def await_key(self, key: str) -> None:
        """Wait for what members tell."""
        asyncio.run(self._await(key))

    async def _await(self, key: str) -> None:
        async with await AsyncStore.connect(self.url, token=TOKEN) as store:
            await store.wait([key], timeout=30 * SLOW)

    def log_in(self, token: str = TOKEN) -> None:
        """As people do: with the form, and the keyboard."""
        self.browser.open(self.page)
        self.browser.run("document.querySelector('#token').focus()")
        self.browser.type(token)
        self.browser.key("Enter")
        self.browser.wait("document.querySelector('.link')?.dataset.is === 'live' || document.querySelector('#why')")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests: it takes longer to start than most of them."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def wall(chromium: Browser) -> Iterator[Wall]:
    """A store with a token, and a browser that does not know it yet."""
    with closing(Program("serve", "--http", "0", environment={"AIOPG_TOKEN": TOKEN})) as store:
        url, page = store.line(), store.line()
        chromium.new_page()
        yield Wall(url, page, chromium)


@pytest.fixture
def scene(wall: Wall) -> Iterator[StartScene]:
    """Has members at the store, as processes: `scene(NAME, ARGUMENT...)`."""
    programs: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "tests.screens.scenes", name, wall.url, *arguments]
        programs.append(subprocess.Popen(command, env=os.environ | {"AIOPG_TOKEN": TOKEN}))

    yield start
    for program in programs:
        program.kill()
        program.wait()


def test_rank_5_of_8_is_seen_as_awaited_within_a_second(wall: Wall, scene: StartScene) -> None:
    """Eight processes, of which rank 5 sleeps before a barrier: the page names it, large, and so does its cell."""
    for rank in range(8):
        scene("one_of_eight", str(rank))
    wall.log_in()
    browser = wall.browser
    browser.wait("document.querySelectorAll('.rank[data-state=j]:not(.sign)').length === 8", 20 * SLOW)
    # The page notes by itself when it says so first, and how long the round has waited by then: nobody looks late.
    browser.run(
        """(() => {
            const who = document.querySelector('#who');
            const look = () => {
                if (who.textContent !== 'Rank 5' || window.seen !== undefined) return;
                window.seen = document.querySelector('#how-long').textContent;
            };
            new MutationObserver(() => queueMicrotask(look)).observe(document.querySelector('#awaited'),
                { subtree: true, childList: true, characterData: true });
        })()"""
    )
    wall.put("start")
    seen = browser.wait("window.seen", 20 * SLOW)
    assert seen.startswith("for ")
    assert float(seen.removeprefix("for ").removesuffix(" s")) < 1.0 * SLOW, seen
    assert browser.text("#what") == "train waits in barrier() #21; 7 of 8 are there"
    assert browser.text("#holders").startswith("rank 5 is connected; its last call was ")
    assert "pid " in browser.text("#holders")
    assert browser.text(".rounds .missing") == "rank 5"
    awaited = "[...document.querySelectorAll('.rank[data-awaited]:not(.sign)')].map((cell) => cell.ariaLabel).join()"
    assert browser.run(awaited) == "rank 5: joined, awaited"
    assert browser.wait("document.title").startswith("Rank 5, ")
    browser.wait("parseFloat(document.querySelector('#how-long').textContent.slice(4)) > 1.5")
    wall.put("wake up")
    browser.wait("document.querySelector('#who').textContent === 'Nobody'")
    words = browser.wait("document.querySelector('.card figcaption').textContent.startsWith('Slowest') && "
                         "document.querySelector('.card figcaption').textContent")  # fmt: skip
    assert words.endswith("rank 5 came last")
    wall.put("end")


def axe(browser: Browser) -> list[str]:
    """What axe-core finds wrong with the page, in short."""
    browser.run((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = browser.run(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => JSON.stringify(violations.map("
        "(one) => [one.id, one.help, one.nodes.map((node) => [node.html.slice(0, 200), node.failureSummary])])))"
    )
    return [json.dumps(one) for one in json.loads(found)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_from_using_it(wall: Wall, scene: StartScene, scheme: str) -> None:
    """axe-core finds no violation, in light and in dark, in the form, in the refusal, and with all there is to show."""
    browser = wall.browser
    browser.prefer(scheme)
    browser.call("Page.setBypassCSP", enabled=True)  # for axe, which is no part of the page
    browser.open(wall.page)
    assert axe(browser) == []
    wall.log_in("the token of another store")
    assert browser.text("[role=alert]") == "This store knows no such token."
    assert axe(browser) == []
    scene("all_kinds")
    wall.await_key("all kinds are there")
    wall.log_in()
    for state in ("j", "a", "l", "x", "absent"):
        browser.wait(f"document.querySelector('.rank[data-state={state}]:not(.sign)')")
    browser.wait("document.querySelectorAll('.card').length === 4")
    assert axe(browser) == []


def test_hostile_names_are_text(wall: Wall, scene: StartScene) -> None:
    """A group, host, tag and reason that are markup are shown as they are, and make no element and run no script."""
    browser = wall.browser
    scene("all_kinds")
    wall.await_key("all kinds are there")
    wall.log_in()
    browser.wait("document.querySelectorAll('.card').length === 4")
    browser.wait("document.querySelector('#holders').textContent.includes('img src')")
    names = browser.run("[...document.querySelectorAll('.card h3')].map((name) => name.textContent)")
    assert HOSTILE in names
    assert HOSTILE in browser.text("#what")
    assert HOSTILE in browser.text("#holders")
    assert HOSTILE[:60] in browser.text(".rounds")
    assert browser.run("document.querySelectorAll('img, .card script, main script').length") == 0
    assert "broken" not in browser.run("document.title").replace(HOSTILE, "")
    # The door is locked as well: text that is given to the browser as markup is refused by it.
    refused = "(() => { try { document.body.innerHTML = '<b>x</b>'; return ''; } catch (e) { return e.name; } })()"
    assert browser.run(refused) == "TypeError"


def test_the_page_is_used_with_the_keyboard(wall: Wall, scene: StartScene) -> None:
    """Tab goes to each control once, and a grid of ranks is one of them; arrows go from rank to rank, which is told."""
    browser = wall.browser
    scene("all_kinds")
    wall.await_key("all kinds are there")
    wall.log_in()
    browser.wait("document.querySelectorAll('.card').length === 4")
    focused = "document.activeElement.id || document.activeElement.className || document.activeElement.textContent"
    browser.run("document.body.focus()")
    stops = []
    for _ in range(12):
        browser.key("Tab")
        stops.append(browser.run(focused))
        if stops[-1] == "ranks":
            break
    assert stops[0] == "skip"
    assert "pause" in stops
    assert "Log out" in stops
    assert stops[-1] == "ranks"
    assert stops.count("ranks") == 1
    for key, place in (("ArrowRight", 0), ("ArrowRight", 1), ("End", 7), ("ArrowLeft", 6), ("Home", 0)):
        browser.key(key)
        chosen = "document.activeElement.getAttribute('aria-activedescendant')"
        assert browser.run(chosen).endswith(f"-{place}")
        detail = "document.activeElement.closest('.card').querySelector('.detail').textContent"
        assert browser.run(detail).startswith(f"rank {place}: joined")
    browser.key("Escape")
    assert browser.run(chosen) is None
    # And the pause, which holds everything still.
    browser.run("document.querySelector('#pause').focus()")
    browser.key(" ")
    browser.wait("document.querySelector('.link').dataset.is === 'paused'")
    assert browser.run("document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
    browser.key(" ")
    browser.wait("document.querySelector('.link').dataset.is === 'live'")


def test_a_thousand_ranks_and_two_hundred_rounds_a_second(wall: Wall, scene: StartScene) -> None:
    """The page goes on answering: no task of it is long, and a click is answered at once."""
    browser = wall.browser
    scene("thousand", "5,333,334,801", "200")
    wall.await_key("all are there")
    wall.log_in()
    browser.wait("document.querySelectorAll('.rank[data-awaited]:not(.sign)').length === 4", 20 * SLOW)
    assert browser.text("#who") == "Ranks 5, 333\N{EN DASH}334, 801"
    browser.run(
        """(() => {
            window.long = []; window.slow = [];
            new PerformanceObserver((list) => long.push(...list.getEntries().map((one) => one.duration)))
                .observe({ type: 'longtask' });
            new PerformanceObserver((list) => slow.push(...list.getEntries().map((one) => one.duration)))
                .observe({ type: 'event', durationThreshold: 16 });
        })()"""
    )
    cells = "[...document.querySelectorAll('.card .rank')]"
    for place in range(0, 200, 20):
        box = browser.run(
            f"(() => {{ const box = {cells}[{place}].getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
        browser.wait(f"{cells}[{place}].ariaSelected === 'true'")
        time.sleep(0.05)  # a person; the page is told of something meanwhile
    long, slow = browser.run("window.long"), browser.run("window.slow")
    print(f"long tasks: {long} ms; slow answers: {slow} ms")
    # There may be more ranks than cells: then one stands for several, and shows the worst of them.
    browser.run(
        """import('/static/ranks.js').then(({ RankGrid }) => {
            window.grid = new RankGrid();
            grid.show('j'.repeat(4096) + 'l' + 'j'.repeat(903), '7');
        })"""
    )
    labels = browser.run("[...grid.grid.children].map((cell) => cell.ariaLabel)")
    assert len(labels) <= 2048
    assert labels[2] == "ranks 6 to 8, at worst: joined, awaited"
    assert labels[1365] == "ranks 4095 to 4097, at worst: lost"
    # What is held good of pages is an answer within 200 ms; on a machine that is not busy these take 24.
    assert max(long, default=0) < 200 * SLOW, long
    assert statistics.median(slow or [0]) < 200 * SLOW, slow
    wall.put("end")


def test_without_the_token_there_is_nothing_to_see(wall: Wall) -> None:
    """The form is all; what a script of another page would get is refused; a log out is the end of it."""
    browser = wall.browser
    browser.open(wall.page)
    assert browser.run("location.pathname") == "/login"
    codes = browser.run(
        "Promise.all(['/api/status', '/api/events', '/metrics', '/readyz', '/static/page.js'].map("
        "async (path) => (await fetch(path)).status))"
    )
    assert codes == [401] * 5
    wall.log_in()
    assert browser.run("document.cookie") == ""  # no script sees it
    browser.run("document.querySelector('#leave button').click()")
    browser.wait("location.pathname === '/login'")
    assert browser.run("fetch('/api/status').then((answer) => answer.status)") == 401


def test_a_page_that_is_left_alone_comes_back_with_its_store(wall: Wall) -> None:
    """When the side port's process ends the page says so, and goes on when there is one again."""
    wall.log_in()
    browser = wall.browser
    stores = [pid for pid in children(os.getpid()) if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    (side,) = children(stores[0])
    os.kill(side, 9)
    browser.wait("document.querySelector('.link').dataset.is === 'lost'")
    # A new process has another secret: who was logged in is asked again.
    browser.wait("location.pathname === '/login'", 20 * SLOW)
