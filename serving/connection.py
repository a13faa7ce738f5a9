"""uvicorn's HTTP protocol, with one thing more: when the client leaves, what it waited for is cancelled.

ASGI tells an application that its client left only when it asks, and asking costs a task for each request.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Connection(HttpToolsProtocol):
    """One connection of a client. Finds itself in each request's scope as `slipway.connection`."""

    awaited: "asyncio.Future[Any] | None" = None
    gone = False

    def on_message_begin(self) -> None:
        """Put this connection into the scope. Called by the parser."""
        super().on_message_begin()
        self.scope["slipway.connection"] = self  # type: ignore[typeddict-unknown-key]

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the client waited for. Called by the transport."""
        super().connection_lost(exc)
        self.gone = True
        if self.awaited is not None:
            self.awaited.cancel()
