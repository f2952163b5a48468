"""A GET of a small document, in a thread that can be told to end."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

_HEADERS: Final = {
    "Accept": "application/jwk-set+json, application/json",
    "Connection": "close",
    "User-Agent": "memoryd",
}


class GetFailed(Exception):
    """No document. The text says why, in a few words."""


class Get:
    """One GET over http, or over https with the certificates that the system trusts.

    Redirects are not followed and compressed answers not accepted.
    """

    def __init__(self, url: str, *, timeout: float, max_bytes: int) -> None:
        """`timeout`: of each step, in seconds. For all of them together, call `abort`."""
        self._url = urlsplit(url)
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def run(self) -> bytes:
        """Give the document. Blocks. Raises GetFailed."""
        try:
            connection = self._connect()
            try:
                return self._answer(connection)
            finally:
                connection.close()
        except ssl.SSLCertVerificationError as error:
            raise GetFailed(f"its certificate is not trusted: {error.verify_message}") from None
        except TimeoutError:
            raise GetFailed(f"no answer within {self._timeout:g} s") from None
        except OSError as error:
            raise GetFailed(error.strerror or type(error).__name__) from None
        except UnicodeError:  # a label of more than 63 characters
            raise GetFailed("no such host") from None
        except http.client.HTTPException as error:
            raise GetFailed(f"no answer of HTTP: {type(error).__name__}") from None

    def abort(self) -> None:
        """End a `run` in another thread, unless it looks up a name, which takes its own time."""
        with self._lock:
            self._is_aborted = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=self._timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        connection.connect()
        with self._lock:
            # The connection itself lets go of it before an answer is read to its end.
            self._socket = connection.sock
            if self._is_aborted:
                connection.close()
                raise TimeoutError
        return connection

    def _answer(self, connection: http.client.HTTPConnection) -> bytes:
        path = self._url.path or "/"
        connection.request(
            "GET", f"{path}?{self._url.query}" if self._url.query else path, headers=_HEADERS
        )
        with connection.getresponse() as response:
            return self._content(response)

    def _content(self, response: http.client.HTTPResponse) -> bytes:
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            raise GetFailed(f"it redirects ({response.status}), which is not followed")
        if response.status != HTTPStatus.OK:
            raise GetFailed(f"it answers with status {response.status}")
        if response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise GetFailed("its answer is compressed")
        content = response.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise GetFailed(f"its answer has more than {self._max_bytes:,} bytes")
        return content
