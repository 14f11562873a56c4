"""A stand-in for the model hub: serves folders over the routes that the hub client calls, on this machine."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Fault = Callable[[BaseHTTPRequestHandler, bytes], None]
"""Answers a request in its own way: it is given the handler and what should have been sent."""


@contextmanager
def serve(
    models: dict[str, Path], gated: frozenset[str] = frozenset(), faults: Mapping[str, Fault] | None = None
) -> Iterator[str]:
    """Serve `{hub id: folder}` and yield the address; ids in `gated` exist but are refused.

    `faults`: what goes wrong when a file is fetched, by the ends of their paths, as "model.safetensors"; may change
    while it serves.
    """
    faults = {} if faults is None else faults

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(with_body=True)

        def do_HEAD(self):
            self._answer(with_body=False)

        def log_message(self, *args):
            pass

        def _answer(self, with_body: bool) -> None:
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            parts = parts[2:] if api else parts
            name = "/".join(parts[:2])
            if name in gated:
                self._send(403, b"", with_body, {"X-Error-Code": "GatedRepo"})
            elif name not in models:
                self._send(404, b"", with_body, {"X-Error-Code": "RepoNotFound"})
            elif parts[2:3] in (["resolve"], ["revision"], ["tree"]) and parts[3] not in ("main", COMMIT):
                self._send(404, b"", with_body, {"X-Error-Code": "RevisionNotFound"})
            elif api:
                self._send(200, json.dumps(self._listing(name, parts)).encode(), with_body, {})
            else:
                file = models[name] / "/".join(parts[4:])
                if file.is_file():
                    self._send(200, file.read_bytes(), with_body, {"X-Repo-Commit": COMMIT})
                else:
                    headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
                    self._send(404, b"", with_body, headers)

        def _listing(self, name: str, parts: list[str]):
            files = [file for file in sorted(models[name].iterdir()) if file.is_file()]
            if parts[2:3] == ["tree"]:
                return [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _etag(file.read_bytes())}
                    for file in files
                ]
            return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}

        def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
            path = unquote(urlparse(self.path).path)
            fault = next((fault for end, fault in list(faults.items()) if path.endswith(end)), None)
            if with_body and fault is not None:
                self.close_connection = True
                return fault(self, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{_etag(body)}"')
            if path.endswith(".safetensors"):
                self.send_header("X-Linked-ETag", f'"{hashlib.sha256(body).hexdigest()}"')
                self.send_header("X-Linked-Size", str(len(body)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    with _running(Handler) as address:
        yield address


@contextmanager
def serve_nonsense() -> Iterator[str]:
    """A server that answers everything with a cheerful HTML page, as a hotel's proxy does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<html>Welcome to the hotel</html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with _running(Handler) as address:
        yield address


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _etag(body: bytes) -> str:
    """Git's id of the content, as the hub has it for small files."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
