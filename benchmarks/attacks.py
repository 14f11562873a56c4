"""Hostile visitors, by kind: what each sends to a running app, and the models and files that it brings.

Each attack goes on until it is told to end and raises nothing: what the app answers is of no interest here, only what
the others notice (`benchmarks/load.py --attack`). All of it goes to one app of this machine and to a stand-in hub.
"""

import io
import itertools
import json
import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from transact.models.sources import BUNDLED_DIRECTORY

SECRET = "violet-heron-1984"
"""What a hostile text holds, so that a log that quotes it is found."""
JUNK = (1e12, -1, 2.5, "1e12", "9" * 6000, [], {}, None, True, [[1e12]], "x", math.nan, math.inf)
"""In the place of a number. JSON of Python takes the last two, and so does the app's parser."""
_MODELS = ("deep", "wide", "multiplying", "nested")
_UPLOAD_BYTES, _BODY_BYTES = 19_000_000, 31_000_000
_AT_A_TIME = 6
_LEAVING_SECONDS = 20.0
"""For answers that are still awaited when an attack is over."""


@dataclass
class Host:
    """The app under attack: where it listens, its page's events and what was uploaded to it."""

    url: str
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        self.web = httpx.Client(base_url=self.url, timeout=15, limits=httpx.Limits(max_connections=64))
        self.config = self.web.get("config").json()
        self._names = itertools.count()

    def visitor(self) -> str:
        """A name that nobody had before."""
        return f"hostile-{next(self._names)}"

    def events(self, trigger: str | None = None) -> list[dict]:
        """The page's events with their inputs; those alone of the component with this `elem_id`, where one is given."""
        ids = {part["id"] for part in self.config["components"] if part["props"].get("elem_id") == trigger}
        return [
            event
            for event in self.config["dependencies"]
            if event["inputs"] and (trigger is None or any(target[0] in ids for target in event["targets"]))
        ]

    def values(self, event: dict) -> dict[str, object]:
        """What the page sends for an event when nothing was changed, by `elem_id`, or by number where it has none."""
        parts = {part["id"]: part["props"] for part in self.config["components"]}
        return {parts[id].get("elem_id") or str(id): parts[id].get("value") for id in event["inputs"]}

    def run(self, event: dict | str, data: list, visitor: str | None = None) -> str:
        """Have an event of the page (or an endpoint, by its name) done and wait for its end; what was last said of it.

        As the page does: the question by one request, and another one that listens.
        """
        if isinstance(event, str):
            (event,) = (known for known in self.config["dependencies"] if known["api_name"] == event)
        visitor, said = visitor or self.visitor(), ""
        if "event_id" not in self.join(event, data, visitor):
            return said
        with suppress(httpx.HTTPError), self.web.stream("GET", f"gradio_api/queue/data?session_hash={visitor}") as news:
            for line in news.iter_lines():
                said = line or said
                if self.over.is_set() or any(end in line for end in ("process_completed", "close_stream")):
                    break
        return said

    def join(self, event: dict, data: list, visitor: str) -> str:
        """Ask for an event of the page, and listen to nothing."""
        body = json.dumps({"data": data, "fn_index": event["id"], "session_hash": visitor}).encode()
        return self.post("gradio_api/queue/join", body)

    def post(self, path: str, body: bytes) -> str:
        with suppress(httpx.HTTPError):
            return self.web.post(path, content=body, headers={"Content-Type": "application/json"}).text
        return ""

    def upload(self, name: str, content: bytes) -> str | None:
        """The path under which the app keeps an upload; None where it refuses it."""
        with suppress(httpx.HTTPError, ValueError, KeyError, IndexError):
            return self.web.post("gradio_api/upload", files={"files": (name, content)}).json()[0]
        return None


@dataclass(frozen=True)
class Attack:
    """`once` is done over and over, by so many at a time."""

    name: str
    once: Callable[[Host], object]
    at_a_time: int = _AT_A_TIME

    def go_on(self, host: Host, seconds: float) -> int:
        """Attack for so long; how often `once` came to its end."""
        rounds = itertools.count()

        def again() -> None:
            while not host.over.is_set():
                with suppress(httpx.HTTPError, OSError):
                    self.once(host)
                next(rounds)

        threads = [threading.Thread(target=again, daemon=True) for _ in range(self.at_a_time)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        host.over.set()
        until = time.monotonic() + _LEAVING_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return next(rounds)


def numbers(host: Host) -> None:
    """Every number of every event of the page, in turn, as none should be."""
    for event in host.events():
        usual = host.values(event)
        for name, value in usual.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                for junk in JUNK:
                    host.run(event, list({**usual, name: junk}.values()))
                    if host.over.is_set():
                        return


def shots(host: Host) -> None:
    """A recovery of 10¹² shots, and what it would cost."""
    visitor = host.visitor()
    for trigger in ("recover-shots", "recover-button"):
        for event in host.events(trigger):
            usual = host.values(event)
            host.run(event, list({**usual, "recover-shots": 1e12, "recover-shot-tokens": 1}.values()), visitor)


def configurations(host: Host) -> None:
    """Repositories of a billion layers, or of layers a billion wide, and tokenizers that multiply or never match."""
    visitor = host.visitor()
    for name in _MODELS:
        host.run("load_model", [f"hostile/{name}"], visitor)
        for event in host.events("model-select"):
            host.run(event, list({**host.values(event), "model-select": f"hostile/{name}"}.values()), visitor)
        host.run("score", ["a" * 2000, "transact", 4, 64], visitor)


def parquets(host: Host) -> None:
    """A file of some kilobytes whose one cell unpacks to 190 MB."""
    _give_file(host, "bomb.parquet", _parquet_bomb())


def long_uploads(host: Host) -> None:
    """A text of 19 MB, and then the form changed again and again, of which each change asks for an estimate."""
    visitor = host.visitor()
    path = host.upload("long.jsonl", _long_text())
    for samples in range(8):
        for event in host.events("calibration-source"):
            given = {**host.values(event), "calibration-source": "upload", "calibration-file": _file(path)}
            host.run(event, [samples + 1 if value == 128 else value for value in given.values()], visitor)


def interrupted_uploads(host: Host) -> None:
    """Uploads that stop in the middle, and ones beyond what is taken."""
    at = urlsplit(host.url)
    for announced, sent in ((_UPLOAD_BYTES, _UPLOAD_BYTES // 2), (10**9, 10**6)):
        with suppress(OSError), socket.create_connection((at.hostname, at.port), timeout=20) as line:
            head = (
                "POST /gradio_api/upload HTTP/1.1", f"Host: {at.netloc}",
                "Content-Type: multipart/form-data; boundary=b", f"Content-Length: {announced}", "", "--b",
                'Content-Disposition: form-data; name="files"; filename="a.txt"', "", "",
            )  # fmt: skip
            line.sendall("\r\n".join(head).encode() + b"x" * sent)
    host.upload("full.txt", b"y" * _UPLOAD_BYTES)


def bodies(host: Host) -> None:
    """Requests of 31 MB that are no upload: valid JSON, and not."""
    text = SECRET * (_BODY_BYTES // len(SECRET))
    for path in ("run/generate", "call/generate", "queue/join"):
        host.post(f"gradio_api/{path}", json.dumps({"data": [text], "fn_index": text[:100]}).encode())
        host.post(f"gradio_api/{path}", json.dumps({"data": [SECRET * 10_000, 1, 2], "fn_index": -1}).encode())
    host.run("generate", [SECRET * 20_000])


def unread_answers(host: Host) -> None:
    """Jobs asked for by the queue, whose answers nobody listens to."""
    visitor = host.visitor()
    for event in host.events("score-button") + host.events("generate-button"):
        for _ in range(20):
            host.join(event, list(host.values(event).values()), visitor)


def heartbeats(host: Host) -> None:
    """Two hundred pages that open and are closed at once."""
    at = urlsplit(host.url)
    lines = []
    for _ in range(200):
        with suppress(OSError):
            line = socket.create_connection((at.hostname, at.port), timeout=20)
            line.sendall(f"GET /gradio_api/heartbeat/{host.visitor()} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode())
            lines.append(line)
    time.sleep(0.5)
    for line in lines:
        line.close()


def downloads(host: Host) -> None:
    """Plans cut and written again and again, which fills a disk."""
    visitor = host.visitor()
    for share in (0.1, 0.2, 0.3):
        host.run("plan", [0.0, share, "uniform"], visitor)
        host.run("prune", ["none"], visitor)
        for kind in ("checkpoint", "gguf"):
            host.run("export", [kind], visitor)


ATTACKS = (
    Attack("numbers without bound", numbers),
    Attack("10¹² shots", shots),
    Attack("hostile repositories", configurations, at_a_time=2),
    Attack("a parquet that unpacks", parquets, at_a_time=4),
    Attack("estimates of 19 MB", long_uploads, at_a_time=8),
    Attack("uploads cut off", interrupted_uploads),
    Attack("bodies of 31 MB", bodies),
    Attack("answers nobody reads", unread_answers),
    Attack("heartbeats closed", heartbeats, at_a_time=2),
    Attack("downloads without end", downloads, at_a_time=3),
)


def attack(url: str, name: str, seconds: float) -> int:
    """Have the attack of that name go on against the app for so long; how many rounds came to their end."""
    (chosen,) = (one for one in ATTACKS if one.name == name)
    return chosen.go_on(Host(url), seconds)


def hostile_models(folder: Path) -> dict[str, Path]:
    """Hub ids and folders of the models that the attacks name; copies of the bundled one, each spoiled in one way."""
    source, found = BUNDLED_DIRECTORY, {}
    for name in _MODELS:
        place = folder / name
        place.mkdir(parents=True)
        for file in source.iterdir():
            if file.is_file():
                (place / file.name).write_bytes(file.read_bytes())
        found[f"hostile/{name}"] = place
    for name, sizes in (("deep", {"num_hidden_layers": 10**9}), ("wide", {"intermediate_size": 10**12})):
        config = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps({**config, **sizes}))
    replaced = normalizers.Sequence([normalizers.Replace("a", "a" * 32) for _ in range(5)])
    _tokenizer(folder / "multiplying", normalizer=replaced)
    _tokenizer(folder / "nested", pre_tokenizer=pre_tokenizers.Split(Regex("(a+)+$"), "isolated"))
    return found


def _tokenizer(folder: Path, **parts) -> None:
    """One of single characters, with these parts."""
    vocabulary = {"<unk>": 0, **{chr(letter): 1 + letter - 32 for letter in range(32, 127)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.save(str(folder / "tokenizer.json"))


def _give_file(host: Host, name: str, content: bytes) -> None:
    path, visitor = host.upload(name, content), host.visitor()
    if path is None:
        return
    for event in host.events("calibration-file") + host.events("score-button"):
        given = {**host.values(event), "calibration-source": "upload", "calibration-file": _file(path)}
        host.run(event, list(given.values()), visitor)


def _file(path: str | None) -> dict | None:
    return None if path is None else {"path": path, "meta": {"_type": "gradio.FileData"}}


def _parquet_bomb() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["a" * 190_000_000]}), out, compression="zstd", use_dictionary=False)
    return out.getvalue()


def _long_text() -> bytes:
    line = json.dumps({"text": "A fox met a crow by the river, and the river was wide. " * 20}).encode() + b"\n"
    return line * (_UPLOAD_BYTES // len(line))
