"""A stand-in for the hub's writing side: the routes by which its client makes, looks at and fills repositories."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

MADE_BY_THE_HUB = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes]
    commits: list[str] = field(default_factory=lambda: ["0" * 40])


@dataclass
class WritableHub:
    """`tokens`: who they stand for. `fails`: what a step (whoami, info, create, preupload, lfs, commit) does instead of
    answering: a status, or None to keep silent. `asked`: every request as (step, token)."""

    tokens: dict[str, str]
    repositories: dict[str, Repository] = field(default_factory=dict)
    fails: dict[str, int | None] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)
    address: str = ""


@contextmanager
def serve(hub: WritableHub) -> Iterator[str]:
    """Serve `hub` and yield its address; what keeps silent is let go at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            path = unquote(urlparse(self.path).path)
            if path == "/api/whoami-v2":
                self._step("whoami", lambda: (200, {"name": self._user(), "type": "user"}))
            elif path.startswith("/api/models/"):
                self._step("info", lambda: _info(hub, path.removeprefix("/api/models/"), self._user()))
            else:
                self._send(404, {})

        def do_POST(self):
            path, body = unquote(urlparse(self.path).path), self._body()
            if path == "/api/repos/create":
                self._step("create", lambda: _create(hub, json.loads(body), self._user()))
            elif path == "/api/validate-yaml":
                self._send(200, {"errors": [], "warnings": []})
            elif path.endswith("/objects/batch"):
                self._step("lfs", lambda: (200, _batch(hub, json.loads(body))))
            elif "/preupload/" in path:
                self._step("preupload", lambda: (200, _modes(json.loads(body))))
            else:
                (name,) = re.findall(r"^/api/models/(.+)/commit/main$", path)
                self._step("commit", lambda: _commit(hub, name, [json.loads(line) for line in body.splitlines()]))

        def do_PUT(self):
            body = self._body()
            oid = hashlib.sha256(body).hexdigest()
            assert self.path == f"/store/{oid}"
            hub.stored[oid] = body
            self._send(200, {})

        def _step(self, step: str, answer) -> None:
            hub.asked.append((step, self._token()))
            if step in hub.fails and hub.fails[step] is None:
                hub.released.wait(60)
                self.close_connection = True
            elif step in hub.fails:
                self._send(hub.fails[step], {"error": f"{step} is out of order"})
            elif self._user() is None:
                self._send(401, {"error": "Invalid username or password."})
            else:
                self._send(*answer())

        def _token(self) -> str:
            return self.headers.get("Authorization", "").removeprefix("Bearer ")

        def _user(self) -> str | None:
            return hub.tokens.get(self._token())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _send(self, status: int, values: dict) -> None:
            body = json.dumps(values).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub.address
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()


def _info(hub: WritableHub, name: str, user: str) -> tuple[int, dict]:
    found = hub.repositories.get(name)
    if found is None or (found.private and not name.startswith(f"{user}/")):
        return 404, {"error": "Repository not found"}
    siblings = [{"rfilename": file} for file in found.files]
    return 200, {"id": name, "sha": found.commits[-1], "private": found.private, "siblings": siblings}


def _create(hub: WritableHub, asked: dict, user: str) -> tuple[int, dict]:
    owner = asked["organization"] or user
    name = f"{owner}/{asked['name']}"
    if name in hub.repositories:
        return 409, {"error": "You already created this model repo"}
    if owner != user:
        return 403, {"error": "You don't have the rights to create a model under this namespace"}
    hub.repositories[name] = Repository(asked.get("visibility") == "private", dict(MADE_BY_THE_HUB))
    return 200, {"url": f"{hub.address}/{name}", "name": name}


def _modes(asked: dict) -> dict:
    return {
        "files": [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
    }


def _batch(hub: WritableHub, asked: dict) -> dict:
    return {
        "transfer": "basic",
        "objects": [
            {**entry, "actions": {"upload": {"href": f"{hub.address}/store/{entry['oid']}"}}}
            for entry in asked["objects"]
        ],
    }


def _commit(hub: WritableHub, name: str, lines: list[dict]) -> tuple[int, dict]:
    repository = hub.repositories[name]
    if lines[0]["value"].get("parentCommit", repository.commits[-1]) != repository.commits[-1]:
        return 412, {"error": "A commit has happened since. Please refresh and try again."}
    for line in lines[1:]:
        value = line["value"]
        match line["key"]:
            case "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            case "lfsFile":
                repository.files[value["path"]] = hub.stored[value["oid"]]
            case "deletedFile":
                del repository.files[value["path"]]
    repository.commits.append(hashlib.sha1(repr(sorted(repository.files)).encode()).hexdigest())
    return 200, {"commitUrl": f"{hub.address}/{name}/commit/{repository.commits[-1]}",
                 "commitOid": repository.commits[-1]}  # fmt: skip
