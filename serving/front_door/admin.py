"""The port of whoever runs the server: TorchServe's management API as far as it changes nothing, for those with an admin key.

A release names one archive; registering, removing and scaling models at run time is left to the next release.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serving.front_door.bodies import Receive
from serving.front_door.errors import ApiError, error_body, unavailable
from serving.front_door.keys import Keys

Ask = Callable[[str], Awaitable[tuple[int, bytes]]]  # a path to TorchServe's status and body
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Admin:
    """An ASGI application: GET /models and below, from `ask`."""

    def __init__(self, ask: Ask, keys: Keys) -> None:
        self._ask, self._keys = ask, keys

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        headers: dict[str, str] = {}
        try:
            status, body = await self._answer(scope)
        except ApiError as error:
            status, body, headers = error.status, error.body, error.headers
        every = [("content-type", "application/json"), ("content-length", str(len(body))), *headers.items()]
        encoded = [(name.encode(), value.encode()) for name, value in every]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any]) -> tuple[int, bytes]:
        given, path = dict(scope["headers"]), scope["path"]
        self._keys.admit(given.get(b"authorization"), given.get(b"x-api-key"))
        if path != "/models" and not path.startswith("/models/"):
            raise ApiError(404, "NotFound", f"got {path}; this port has /models and /models/NAME[/VERSION]")
        if scope["method"] != "GET":
            message = f"got {scope['method']}, wanted GET: a release is changed by the next one, not while it runs"
            raise ApiError(405, "MethodNotAllowed", message, headers={"allow": "GET"})
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ApiError(404, "NotFound", "got a path that no model has")
        try:
            status, body = await self._ask(path)
        except (OSError, TimeoutError, EOFError, ValueError, LookupError):
            raise unavailable("NotReady", "TorchServe does not answer: try again after a second") from None
        if status != 200:
            return status, error_body(status, "TorchServe", body.decode(errors="replace").strip())
        return status, body
