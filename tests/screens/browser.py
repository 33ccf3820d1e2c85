"""A real browser, headless, for tests: Chromium, driven by its devtools protocol over two pipes.

Pipes and not a port: nobody else can drive it, and it ends when this process does.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Self

__all__ = ["Browser"]

INSTALL = "apt-get install -y --no-install-recommends chromium"

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


LOOK_SECONDS = 0.02
"""A page says nothing by itself when it has changed: it is looked at so often."""


_LOOK = """(() => {
    try { const it = %s; return it instanceof Node ? true : it; } catch { return null; }
})()"""


class DevtoolsError(Exception):
    """A command that could not be carried out."""


class Browser:
    """One browser with one page at a time, as a context manager."""

    def __init__(self, directory: Path, width: int = 1280, height: int = 900) -> None:
        """`directory`: an empty one, for its profile."""
        program = shutil.which("chromium")
        if program is None:
            raise FileNotFoundError(f"this test needs Chromium: {INSTALL}")
        its_in, self._write = os.pipe()
        self._read, its_out = os.pipe()
        # It reads from descriptor 3 and writes to 4; ours may have these numbers.
        reads, writes = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (its_in, its_out))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        moves = [(null, 0), (null, 1), (null, 2), (reads, 3), (writes, 4)]
        self._pid = os.posix_spawn(
            program,
            [program, *FLAGS, f"--user-data-dir={directory}", f"--window-size={width},{height}"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, old, new) for old, new in moves],
            setpgroup=0,
        )
        for fd in (its_in, its_out, reads, writes, null):
            os.close(fd)
        self._number = 0
        self._got = b""
        self._session: str | None = None
        self._context: str | None = None
        self.size = (width, height)

    def __enter__(self) -> Self:
        return self

    def new_page(self) -> None:
        """Begin anew, as a browser that was never used: no page, no cookie, no preference."""
        self._session = None
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        if self._context is not None:
            self.call("Target.disposeBrowserContext", browserContextId=self._context)
        self._context = context
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.resize(*self.size)

    def __exit__(self, *exc: object) -> None:
        self._session = None
        try:
            self.call("Browser.close", timeout=5)
            self._read_to_the_end(time.monotonic() + 5)
        except (OSError, EOFError, TimeoutError):
            pass
        # All of it: also what it started, where it did not end by itself.
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self._pid, 0)
        os.close(self._write)
        os.close(self._read)

    def _read_to_the_end(self, end: float) -> None:
        while True:
            self._next(end)

    def call(self, method: str, *, timeout: float = 30, **params: Any) -> dict[str, Any]:
        """One command of the devtools protocol, and its result."""
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            said["sessionId"] = self._session
        os.write(self._write, json.dumps(said).encode() + b"\0")
        end = time.monotonic() + timeout
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:  # the rest are events
                if "error" in answer:
                    raise DevtoolsError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._got:
            if not select.select([self._read], [], [], max(0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise EOFError("the browser ended")
            self._got += part
        line, _, self._got = self._got.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    # ------------------------------------------------------------------------------------------------- the page

    def open(self, url: str) -> None:
        """Go there, and wait until the document is there."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState !== 'loading' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; a promise is awaited."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise AssertionError(told["exceptionDetails"].get("exception", {}).get("description", told))
        return told["result"].get("value")

    def wait(self, script: str, timeout: float = 10) -> Any:
        """Look until an expression is true, also in the page that follows this one; its value."""
        end = time.monotonic() + timeout
        while True:
            try:
                if value := self.run(_LOOK % script):
                    return value
            except DevtoolsError:
                pass  # one page goes, the next one comes
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout:g} s: {script}\n{self.text()}")
            time.sleep(LOOK_SECONDS)

    def text(self, selector: str = "body") -> str:
        """What is to be read there."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText"))

    def key(self, name: str, modifiers: int = 0) -> None:
        """Press a key: "Tab", "ArrowRight", "Enter", or a letter. `modifiers` 8: with shift."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38,
                 "ArrowRight": 39, "ArrowDown": 40, " ": 32}  # fmt: skip
        code = codes.get(name, ord(name[0].upper()))
        text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
        event: dict[str, Any] = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """Make the window so large."""
        self.size = (width, height)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """What the user likes better: "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
