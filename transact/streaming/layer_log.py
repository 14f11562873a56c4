"""A folder from which interrupted layer-by-layer work resumes.

    streaming.json            what work this is, and how many layers are finished
    streaming-<n>.safetensors what the work needs to resume after n layers

The first is replaced atomically after the second is on the disk, so that the two agree whenever the process ends.
"""

import fcntl
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from transact.errors import SaveRefused

_STATE, NOTES = "streaming.json", "streaming-"


class LayerLog:
    """`folder`, locked until `close` for the work that `identity` (JSON-able) describes.

    `layers`: how many are finished; `tensors`: those that `finish` got with the last of them. What other work left
    there is removed. Raises `SaveRefused` for a folder with other files or locked by another process, and if the disk
    refuses.
    """

    def __init__(self, folder: Path, identity: dict):
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))
        self.layers = 0
        self.tensors: dict[str, torch.Tensor] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            if not self._read():
                self._begin()
        except OSError as error:
            raise SaveRefused(f"{folder} could not be written ({error}). Choose another place.") from error

    def _begin(self) -> None:
        entries = list(self.folder.iterdir())
        if entries and not (self.folder / _STATE).exists():
            raise SaveRefused(f"{self.folder} holds other files. Choose a new or an empty folder.")
        self.layers, self.tensors = 0, {}
        for entry in entries:
            if entry.name != _STATE:
                entry.unlink()
        self.finish(0, {})

    def finish(self, layers: int, tensors: dict[str, torch.Tensor]) -> None:
        """Record that `layers` layers are finished. Raises `SaveRefused` if the disk refuses."""
        try:
            if tensors:
                file = self._file(layers)
                save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, file)
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            state, new = self.folder / _STATE, self.folder / f"{_STATE}.new"
            new.write_text(json.dumps({"work": self._identity, "layers": layers}), encoding="utf-8")
            os.replace(new, state)
            if layers != self.layers:
                self._file(self.layers).unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            raise SaveRefused(
                f"{self.folder} could not be written ({error}). Free some space and start again; what is finished is "
                "kept."
            ) from error
        self.layers = layers

    def remove(self) -> None:
        """Remove all files of the log from the folder, and those that the work named after `NOTES`."""
        for file in (*self.folder.glob(f"{NOTES}*"), self.folder / _STATE):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the folder; the files stay."""
        os.close(self._lock)

    def _locked(self) -> int:
        """A handle of the folder, which is locked while that is open; the system releases it when the process ends."""
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise SaveRefused(
                f"Another process is at work in {self.folder}. Wait for it, or choose another place."
            ) from None
        return handle

    def _read(self) -> bool:
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            if state["work"] != self._identity:
                return False
            self.layers = int(state["layers"])
            file = self._file(self.layers)
            if file.exists():
                with safe_open(file, framework="pt") as tensors:
                    self.tensors = {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # noqa: SIM118
            return True
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return False

    def _file(self, layers: int) -> Path:
        return self.folder / f"{NOTES}{layers}.safetensors"
