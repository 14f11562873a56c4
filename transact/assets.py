"""Paths of the files that come with the project: the bundled model, sample texts, style sheets and page scripts.

In a clone they are the folder `assets` beside this package; an installed package holds them inside, as `_assets`.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets"

ASSETS = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.with_name("assets")
"""The folder of all of them."""
SAMPLES = ASSETS / "samples"
"""The folder of the bundled texts, one JSON object with a `text` a line: `mixed.jsonl`, `evaluation_mixed.jsonl` and
so on, to calibrate with and to evaluate on."""
GALLERY = ASSETS / "gallery"
"""The folder of models without their weights, each a file that `GalleryModel.load` reads."""
