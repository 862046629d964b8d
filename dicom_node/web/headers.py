"""What every answer carries, whatever made it, and how much a request may carry. Plain ASGI: refusals pass here too.

A fault (500) is answered outside of every middleware; `web.errors` gives it the same headers.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 1_048_576
"""Forms of the dashboard are a few kilobytes, a configuration file some tens."""

MAX_BODY_S: Final = 30.0
"""How long a body may take in all: a megabyte at 35 kB/s. Whoever drips is hung up on, or would hold a connection."""

_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


def content_policy(**wider: str) -> str:
    """The Content-Security-Policy; `wider` names directives with "_" for "-", as in ``worker_src="'self' blob:"``.

    A route that needs more than the rest sets the header on its own answer: what is there is not replaced.
    """
    directives = _POLICY | {name.replace("_", "-"): sources for name, sources in wider.items()}
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())


ALWAYS: Final = {
    "Content-Security-Policy": content_policy(),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class GuardHeaders:
    """The application behind its headers and its limit on what a request may carry."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > MAX_BODY_BYTES:
            await _too_large(send_guarded)
            return
        await self._app(scope, _limited(receive), send_guarded)


def _limited(receive: Receive) -> Receive:
    """What is received, ended as if the peer had gone once the body is longer or slower than bodies may be.

    After the body the server is asked further, to learn when the peer goes; that may take as long as it likes.
    """
    taken, whole = 0, False
    deadline_s = asyncio.get_running_loop().time() + MAX_BODY_S

    async def receive_limited() -> Message:
        nonlocal taken, whole
        try:
            async with asyncio.timeout_at(None if whole else deadline_s):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        taken += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        return message if taken <= MAX_BODY_BYTES else {"type": "http.disconnect"}

    return receive_limited


async def _too_large(send: Send) -> None:
    body = f"A request may carry at most {MAX_BODY_BYTES} bytes.\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
