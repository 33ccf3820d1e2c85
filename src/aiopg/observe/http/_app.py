"""The side port as a web application: its paths, and what every answer of it says about itself.

Everybody may ask `/healthz`, and for the form in which a browser says its token. For all else one must be let in
(`_access`), and sees the groups that one's token is for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import parse_qs

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from aiopg._core.scopes import Scope
from aiopg.errors import StoreLostError
from aiopg.observe.http._access import COOKIE_SECONDS, Access
from aiopg.observe.http._events import Events
from aiopg.observe.http._feed import Feed
from aiopg.observe.http._metrics import Metrics
from aiopg.observe.http._scoped import narrow
from aiopg.observe.http._trace import chrome_json

__all__ = ["make_app"]

FORM_BYTES = 4096
"""A form with a token is no longer."""

FORM_SECONDS = 5.0
"""Who has not said all of it by then has said nothing."""

ANSWER_SECONDS = 10.0
"""Whoever asks waits for the store no longer than that."""

TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

WHY: Final = '<p role="alert" id="why">This store knows no such token.</p>'
"""In the form, where a token was said that is none."""

HEADERS: Final = {
    # Nothing but our own files, no text that becomes markup (trusted types), no page of others round ours.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

Answer = Callable[[Request, Scope], Awaitable[Response]]


def make_app(feed: Feed, access: Access) -> ASGIApp:
    """What uvicorn serves."""
    metrics = Metrics(feed)
    app = Starlette(routes=[*_open_routes(access), *_guarded_routes(feed, access, metrics)])
    return _Outermost(app, access)


def _open_routes(access: Access) -> list[Route]:
    """For everybody."""

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def login(request: Request) -> Response:
        if request.method == "GET":
            return _file("login.html")
        said = await _token_of(request)
        token = access.find(said)
        if token is None:
            return _too_many(request, access) or _refusal()
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            access.cookie, access.make_cookie(token), max_age=COOKIE_SECONDS, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    async def logout(request: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(access.cookie, httponly=True, samesite="strict")
        return answer

    async def look(request: Request) -> Response:
        return _file(request.url.path.removeprefix("/"))

    return [
        Route("/healthz", healthz),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/login.css", look),
        Route("/icon.svg", look),
    ]


def _guarded_routes(feed: Feed, access: Access, metrics: Metrics) -> list[Route]:
    """For those who may look."""

    async def readyz(request: Request, scope: Scope) -> Response:
        await feed.refresh()
        return PlainTextResponse("ready\n")

    async def status(request: Request, scope: Scope) -> Response:
        return _json(narrow(await feed.refresh(), scope))

    one_trace = anyio.Lock()  # megabytes of JSON, and questions to the store: one at a time

    async def trace(request: Request, scope: Scope) -> Response:
        try:
            seconds = float(request.query_params.get("seconds", "inf"))
        except ValueError:
            return PlainTextResponse("seconds must be a number\n", 400)
        async with one_trace:
            text = await chrome_json(feed, scope, request.query_params.get("group"), seconds)
        return Response(text, media_type="application/json")

    async def events(request: Request, scope: Scope) -> Response:
        return Events(feed, lambda: _scope_of(request, access))

    async def show_metrics(request: Request, scope: Scope) -> Response:
        text, content_type = await metrics.render(scope, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    async def page(request: Request, scope: Scope) -> Response:
        return _file("index.html")

    async def file(request: Request, scope: Scope) -> Response:
        name = request.path_params["name"]
        return _file(name) if name in _names() else PlainTextResponse("there is no such page\n", 404)

    async def whether_login(request: Request, scope: Scope) -> Response:
        """The page asks whether there is anything to log out of."""
        return _json({"asks_token": access.asks_token})

    paths: dict[str, Answer] = {
        "/": page,
        "/static/{name}": file,
        "/readyz": readyz,
        "/metrics": show_metrics,
        "/api/status": status,
        "/api/trace": trace,
        "/api/events": events,
        "/api/access": whether_login,
    }
    return [Route(path, _guard(answer, access)) for path, answer in paths.items()]


def _scope_of(request: Request, access: Access) -> Scope | None:
    return access.scope(request.headers.get("authorization"), request.headers.get("cookie"))


def _too_many(request: Request, access: Access) -> Response | None:
    """The answer to a wrong token where too many came from its address; None where they are not too many."""
    if access.failed(request.client.host if request.client is not None else ""):
        return None
    return PlainTextResponse("too many wrong tokens came from this address\n", 429)


def _guard(answer: Answer, access: Access) -> Callable[[Request], Awaitable[Response]]:
    """The answer for who may look; for others what there is to be done, and nothing of the store."""

    async def guarded(request: Request) -> Response:
        scope = _scope_of(request, access)
        if scope is None:
            if "authorization" in request.headers and (refusal := _too_many(request, access)) is not None:
                return refusal
            if request.url.path == "/":
                return RedirectResponse("/login", 303)
            return PlainTextResponse(
                "this needs a token of the store: Authorization: Bearer TOKEN\n", 401, {"www-authenticate": "Bearer"}
            )
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                return await answer(request, scope)
        except (StoreLostError, TimeoutError):
            return PlainTextResponse("the store does not answer\n", 503)

    return guarded


async def _token_of(request: Request) -> str:
    """The token in a form; empty if there is none."""
    body = b""
    with anyio.move_on_after(FORM_SECONDS) as deadline:
        async for part in request.stream():
            body += part
            if len(body) > FORM_BYTES:
                return ""
    if deadline.cancelled_caught:
        return ""
    return parse_qs(body.decode(errors="replace"), max_num_fields=4).get("token", [""])[0].strip()


class _Outermost:
    """Says in every answer what a browser may do with it; and refuses what was meant for another host."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def said(message: Message) -> None:
            if message["type"] == "http.response.start":
                had = {name for name, _ in message["headers"]}
                message["headers"] += [
                    (name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in had
                ]
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        app = self._app if scope["path"] == "/healthz" or self._access.is_meant(host) else _not_meant
        await app(scope, receive, said)


async def _not_meant(scope: AsgiScope, receive: Receive, send: Send) -> None:
    text = "without a token this is answered under an address, localhost or the name of --http only\n"
    await PlainTextResponse(text, 421)(scope, receive, send)


def _json(value: object) -> Response:
    return Response(json.dumps(value), media_type="application/json")


@cache
def _names() -> frozenset[str]:
    return frozenset(file.name for file in (resources.files(__package__) / "static").iterdir())


@cache
def _text(name: str) -> str:
    return (resources.files(__package__) / "static" / name).read_text(encoding="utf-8")


def _file(name: str) -> Response:
    return Response(_text(name), media_type=TYPES[name.rpartition(".")[2]])


def _refusal() -> Response:
    """The form once more, with why."""
    form = _text("login.html").replace("<!-- why -->", WHY)
    form = form.replace('aria-invalid="false"', 'aria-invalid="true" aria-describedby="why"')
    return Response(form, 401, media_type=TYPES["html"])
