"""uvicorn's HTTP protocol, and more: a client that leaves is noticed, slow and bad headers are answered by us, refusals at once.

ASGI tells an application that its client left only when it asks, and asking costs a task for each request. So does every answer; under an
overload most answers are refusals, and would take the CPU that the accepted images need.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.front_door.errors import error_body

REST_TIMEOUT_S = 30.0


class Connection(HttpToolsProtocol):
    """One connection of a client. Finds itself in each request's scope as `slipway.connection`; cancels `awaited` when it is lost."""

    awaited: "asyncio.Future[Any] | None" = None
    gone = False
    _in_head = _in_body = _refused = False
    _rest_timer: asyncio.TimerHandle | None = None  # until the rest of a head, or of a body that nobody reads, must be there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request. Called by the transport."""
        super().connection_made(transport)
        self._rest_timer = self.loop.call_later(REST_TIMEOUT_S, transport.close)

    def data_received(self, data: bytes) -> None:
        """Parse, and wait for what is missing. Called by the transport."""
        super().data_received(data)
        answered = self._refused or (self.cycle is not None and self.cycle.response_complete)
        if self._in_head or (self._in_body and answered):
            if self._rest_timer is None:
                self._rest_timer = self.loop.call_later(REST_TIMEOUT_S, self.transport.close)
            return
        self._stop_timer()
        if answered and self.timeout_keep_alive_task is None:  # uvicorn took it for busy because the rest of a body came
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """Put this connection into the scope. Called by the parser."""
        super().on_message_begin()
        self._in_head = True
        self.scope["slipway.connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """Refuse the request, or start it. Called by the parser."""
        self._in_head, self._in_body = False, True
        self._refused = self._is_next() and self._refuse()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body. Called by the parser."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Nothing is missing. Called by the parser."""
        self._in_body = False
        if not self._refused:
            super().on_message_complete()

    def _is_next(self) -> bool:
        """Whether nothing that came before is still to be answered."""
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _refuse(self) -> bool:
        """Answer and say so, when the application refuses the request. What needs decoding is left to it, it can refuse as well."""
        if b"%" in self.url or b"?" in self.url:
            return False
        self.scope["method"], self.scope["path"] = self.parser.get_method().decode(), self.url.decode("latin-1")
        refusal = self.app.refusal(self.scope)
        if refusal is None:
            return False
        status, head, body = refusal
        stays = self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0"
        default = b"".join([b"%b: %b\r\n" % header for header in self.server_state.default_headers])
        self.transport.write(b"".join((STATUS_LINE[status], default, head, b"\r\n" if stays else b"connection: close\r\n\r\n", body)))
        self.server_state.total_requests += 1
        if not stays:
            self.transport.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what the client waited for. Called by the transport."""
        self._stop_timer()
        super().connection_lost(exc)
        self.gone = True
        if self.awaited is not None:
            self.awaited.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with the one error body. Called by uvicorn."""
        body = error_body(400, "BadRequest", f"{msg} Wanted HTTP/1.1")
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None
