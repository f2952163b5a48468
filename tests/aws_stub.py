"""A stub of AWS Secrets Manager's GetSecretValue: a real HTTP server on the loopback."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

REGION = "eu-west-1"


class SecretsManagerStub:
    """Answers as AWS does, and records the requests."""

    def __init__(self, port: int = 0) -> None:
        self.secrets: dict[str, str | bytes] = {}
        self.faults: dict[str, tuple[int, str]] = {}
        """HTTP status and AWS error code by the secret's name."""
        self.asked: list[str] = []
        """The names requested so far, one per attempt."""
        self.bodies: dict[str, bytes] = {}
        """Bodies to answer instead of JSON, by the secret's name."""
        self.open = threading.Event()
        """While cleared, every request hangs."""
        self.open.set()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["X-Amz-Target"] == "secretsmanager.GetSecretValue"
                name = json.loads(body)["SecretId"]
                stub.asked.append(name)
                stub.open.wait(60)
                status, answer = stub.answer(name)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/x-amz-json-1.1")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    self.close_connection = True  # the caller did not wait

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which a service reads from this stub."""
        return {
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not a secret",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def answer(self, name: str) -> tuple[int, bytes]:
        """HTTP status and body."""
        if name in self.bodies:
            return 200, self.bodies[name]
        if name in self.faults:
            status, code = self.faults[name]
            return status, json.dumps({"__type": code, "Message": "no"}).encode()
        if name not in self.secrets:
            error = {
                "__type": "ResourceNotFoundException",
                "Message": "Secrets Manager can't find the specified secret.",
            }
            return 400, json.dumps(error).encode()
        value = self.secrets[name]
        found = {"ARN": f"arn:aws:secretsmanager:{REGION}:1:secret:{name}-AbCdEf", "Name": name}
        if isinstance(value, bytes):
            found["SecretBinary"] = base64.b64encode(value).decode()
        else:
            found["SecretString"] = value
        return 200, json.dumps(found).encode()

    def stop(self) -> None:
        """Release hanging requests, and close the port."""
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def secrets_manager() -> Iterator[SecretsManagerStub]:
    """Run a stub until the end of the block."""
    stub = SecretsManagerStub()
    try:
        yield stub
    finally:
        stub.stop()
