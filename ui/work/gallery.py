"""The gallery: models whose scores and sizes were found before, open at once and without their weights."""

from functools import lru_cache
from pathlib import Path

import transact as ta
from transact.analysis.gallery_model import SUFFIX
from ui.errors import WrongInput
from ui.server import environment
from ui.state.model_key import GALLERY, ModelKey
from ui.state.session import Sampling, Scored
from ui.text_sources.text_source import TextSource

_MAX_HELD = 8
"""Files whose scores stay in memory; one takes some megabytes."""


def names() -> dict[str, Path]:
    """The gallery's models with their files, those that come with the app first; none of them is read."""
    found: dict[str, Path] = {}
    for folder in (ta.GALLERY, *environment.gallery_folders()):
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            found.setdefault(file.stem, file)
    return found


def key_of(name: str) -> ModelKey:
    return ModelKey(f"{GALLERY}{name}")


def scored(key: ModelKey) -> Scored:
    """What the file of a gallery's model says, as a calibration run.

    Raises `WrongInput` for a model that the gallery does not have, `CheckpointBroken` for a file that cannot be read.
    """
    known = names()
    file = known.get(key.name)
    if file is None:
        raise WrongInput(f"The gallery has no model “{key.name[:100]}”; it has {', '.join(known) or 'none'}.")
    return _scored(key, file, _version(file))


def is_bundled(name: str) -> bool:
    """Whether the file comes with the app, so that it is where the library is."""
    return names().get(name) == ta.GALLERY / f"{name}{SUFFIX}"


def _version(file: Path) -> tuple[int, int]:
    """Tells a file from one that replaced it."""
    try:
        written = file.stat()
    except OSError:  # a link to nothing; reading it says so
        return 0, 0
    return written.st_mtime_ns, written.st_size


@lru_cache(maxsize=_MAX_HELD)
def _scored(key: ModelKey, file: Path, version: tuple[int, int]) -> Scored:
    """One for all visitors; `version` has a file that was replaced read again."""
    model = ta.GalleryModel.load(file)
    record = model.calibration
    return Scored(
        key=key,
        spec=model.spec,
        text=TextSource(record.name, (), "gallery"),
        sampling=Sampling(record.num_samples, record.seq_len, record.seed or 0),
        calibration=model.tokens,
        tokenizer=None,
        seconds=0.0,
        statistics=model.statistics,
        scores=dict(model.scores),
        gallery=model,
    )
