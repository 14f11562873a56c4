"""Files to take away, written below one folder that vanishes with the app; a visitor has one set at a time."""

import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradio.utils import get_upload_folder

import transact as ta
from transact.progress import Check, Repeating
from ui.server.disk import EXPORTS, Disk
from ui.server.error_messages import DiskFull, reason
from ui.server.folders import folder_name
from ui.state.session import ModelKey
from ui.text_sources.text_source import TextSource, as_jsonl
from ui.views.python_code import CALIBRATION_FILE, EVALUATION_FILE, is_own

_PIECE_BYTES = 16 << 20
_STEM_CHARACTERS = 60
"""Of a model's name in a file name: with the longest letters still well below the 255 bytes that disks take."""


class Exports:
    """Where downloads are written.

    Each method raises `SaveRefused` where the disk has no room for it, and leaves nothing half-written.
    """

    def __init__(self, disk: Disk | None = None):
        self._disk = disk or Disk()
        # in gradio's own folder, as it would copy a file that lies elsewhere: every download would be there twice
        served = Path(get_upload_folder())
        served.mkdir(parents=True, exist_ok=True)
        self._root = tempfile.TemporaryDirectory(prefix=EXPORTS, dir=served)

    def checkpoint(
        self, owner: str, name: str, write: Callable[[Path], str], progress: ta.Progress
    ) -> tuple[Path, str]:
        """A zip of the folder that `write` fills (a checkpoint with tokenizer, plan and card), and what it says."""
        with self._fresh(owner) as folder:
            said = write(folder / name)
            archive = folder / f"{name}.zip"
            files = sorted((folder / name).iterdir())
            # weights do not shrink, so they are stored as they are
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as zipped:
                sizes = [file.stat().st_size for file in files]
                watch = Repeating(progress, sum(sizes), "bytes")
                for number, file in enumerate(files):
                    watch(sum(sizes[:number]), sum(sizes), "bytes")
                    _add(zipped, file, f"{name}/{file.name}", watch.check)
            shutil.rmtree(folder / name)
        return archive, said

    def gguf(self, owner: str, name: str, write: Callable[[Path], str]) -> tuple[Path, str]:
        """The file that `write` writes, and what it says."""
        with self._fresh(owner) as folder:
            file = folder / f"{name}.gguf"
            return file, write(file)

    def plan(self, owner: str, name: str, plan: ta.PruningPlan) -> Path:
        """plan.json under a name that says whose it is."""
        return self._written(owner, f"{name}-plan.json", plan.to_json())

    def history(self, owner: str, csv: str) -> Path:
        return self._written(owner, "transact-history.csv", csv)

    def texts(self, owner: str, calibration: TextSource, evaluation: TextSource | None) -> Path:
        """The visitor's own texts in the files that the shown lines read; a document also as it stands."""
        with (
            self._fresh(owner) as folder,
            zipfile.ZipFile(archive := folder / "texts.zip", "w", zipfile.ZIP_DEFLATED) as zipped,
        ):
            for filename, source in ((CALIBRATION_FILE, calibration), (EVALUATION_FILE, evaluation)):
                if source is not None and is_own(source):
                    zipped.writestr(filename, as_jsonl(source))
                    if source.is_document:
                        zipped.writestr(filename.replace(".jsonl", ".txt"), source.texts[0])
        return archive

    def forget(self, owner: str) -> None:
        """Remove what was written for a visitor."""
        shutil.rmtree(self._folder(owner), ignore_errors=True)

    def _written(self, owner: str, filename: str, content: str) -> Path:
        with self._fresh(owner) as folder:
            file = folder / filename
            file.write_text(content, encoding="utf-8")
        return file

    @contextmanager
    def _fresh(self, owner: str) -> Iterator[Path]:
        """An empty folder to write one download into; it goes again when that does not come to its end.

        Whoever knows a file's path is served the file, and every visitor learns where the files of all lie. So its
        folder has a name that is drawn anew each time, and that nothing else about the visitor tells.
        """
        self._disk.need()
        folder = self._folder(owner) / secrets.token_hex(16)
        try:
            self.forget(owner)
            folder.mkdir(parents=True)
            yield folder
        except BaseException as error:
            self.forget(owner)
            # the library names the file, which means nothing to a visitor of another machine's page
            disk = error.__cause__ if isinstance(error, ta.SaveRefused) and error.__cause__ else error
            if disk is error and not isinstance(error, OSError):
                raise
            raise DiskFull(
                f"The disk of the machine that runs this page has no room for the download ({reason(disk)}), and "
                "nothing of it was kept. Free some space there, or take the plan alone, which is small; then try again."
            ) from error

    def _folder(self, owner: str) -> Path:
        return Path(self._root.name) / folder_name(owner)


def _add(zipped: zipfile.ZipFile, file: Path, name: str, check: Check) -> None:
    """Put a file into the archive, piece by piece, as it may have gigabytes; `check` may raise between them."""
    entry = zipfile.ZipInfo.from_file(file, name)
    entry.compress_type = zipped.compression
    with file.open("rb") as source, zipped.open(entry, "w") as target:
        while piece := source.read(_PIECE_BYTES):
            check()
            target.write(piece)


def file_stem(key: ModelKey, number: int) -> str:
    """A file name that tells results apart: model and number."""
    return f"{model_stem(key)}-pruned-{number}"


def model_stem(key: ModelKey) -> str:
    """The model's name as far as a file name can hold it."""
    name = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in Path(key.source).name)
    return name.lstrip(".")[:_STEM_CHARACTERS] or "model"
