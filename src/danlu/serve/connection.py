"""A connection: HTTP by httptools, which takes a head of any length where this one does not."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

_MOST = 64 * 1024
"""Bytes of the names and values that come with a request, before its body and after it."""
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """One that sends away whoever sends a head, or what follows a body in chunks, without end."""

    _n_fields = 0
    """Bytes of names and values of this request so far."""
    _n_waiting = 0
    """Bytes that the parser holds because what they belong to is not complete, at the most."""
    _is_heard = False

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._is_heard = False
        super().data_received(data)
        self._n_waiting = 0 if self._is_heard else self._n_waiting + len(data)
        if max(self._n_fields, self._n_waiting) > _MOST and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """See httptools."""
        self._n_fields, self._is_heard = 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """See httptools."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._count(name, value)
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._is_heard = True
        super().on_body(body)

    def _count(self, *parts: bytes) -> None:
        self._n_fields += sum(map(len, parts))
        self._is_heard = True
