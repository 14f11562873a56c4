"""A stand-in for the hub's datasets: serves flat folders over the routes that `datasets` calls, on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve(folders: dict[str, Path], gated: frozenset[str] = frozenset()) -> Iterator[str]:
    """Serve `{hub id: folder}` and yield the address; ids in `gated` exist but are refused."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            api = parts[0] == "api"
            parts = parts[2:] if api else parts[1:]
            name = "/".join(parts[:2])
            if name in gated:
                self._send(403, b"", {"X-Error-Code": "GatedRepo"})
            elif name not in folders:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif api:
                in_root = parts[2:3] != ["tree"] or len(parts) == 4
                self._send(200, json.dumps(_listing(name, folders[name], parts[2:3]) if in_root else []).encode(), {})
            else:
                file = folders[name] / "/".join(parts[4:])
                found = file.is_file()
                headers = {"X-Repo-Commit": COMMIT} | ({} if found else {"X-Error-Code": "EntryNotFound"})
                self._send(200 if found else 404, file.read_bytes() if found else b"", headers)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            etag, asked = _digest(body), self.headers.get("Range")
            if asked and status == 200:
                first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
                headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
                status, body = 206, body[first : last + 1]
            self.send_response(status)
            for key, value in (headers | {"ETag": f'"{etag}"', "Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _listing(name: str, folder: Path, kind: list[str]):
    files = sorted(file for file in folder.iterdir() if file.is_file())
    if kind == ["tree"]:
        return [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file.read_bytes())}
            for file in files
        ]
    return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}


def _digest(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
