"""Texts of a visitor's own, for scoring and for measuring: their fields become a text, and the right ones are shown."""

from collections.abc import Generator
from dataclasses import dataclass

import gradio as gr

from ui.context import AppContext
from ui.errors import WrongInput
from ui.events.panels import Panels
from ui.events.runner import watched
from ui.server import limits
from ui.state.options import DATASET, PASTE, UPLOAD
from ui.text_sources import text_source, uploads
from ui.text_sources.hub_dataset import DatasetRequest
from ui.text_sources.text_source import DatasetChoice, TextRequest, TextSource


@dataclass(frozen=True)
class OwnText:
    """What stands in the fields of a text of one's own, as the page sends it."""

    text: str | None
    file: str | None
    column: str | None
    dataset: str | None
    config: str | None
    split: str | None
    dataset_column: str | None

    def request(self, source: str, *, seq_len: int, rows: int) -> TextRequest:
        """The text that comes in that way: pasted, uploaded, or so many rows of a dataset. Raises `WrongInput`."""
        if source == DATASET:
            choice = DatasetChoice(
                limits.name("“Dataset”", self.dataset or ""),
                limits.name("“Config”", self.config or "") or None,
                limits.name("“Split”", self.split or "") or DatasetChoice.split,
                limits.name("“Column with the text”", self.dataset_column or "") or None,
            )
            return DatasetRequest(choice, rows)
        if source == UPLOAD:
            if not self.file:
                raise WrongInput("No file has been uploaded yet; upload one, paste text or choose a bundled sample.")
            return uploads.uploaded(
                self.file, limits.name("“Column with the text”", self.column or "") or None, seq_len
            )
        return text_source.pasted("" if self.text is None else self.text, seq_len)


def visible(panel, source, file) -> dict:
    """The fields of the way in which the text comes; `panel` has those of `own_text_fields`."""
    return {
        panel.file: gr.update(visible=source == UPLOAD),
        panel.column: gr.update(visible=source == UPLOAD and len(uploads.known_columns(file)) > 1),
        panel.dataset_fields: gr.update(visible=source == DATASET),
    }


def columns_to_choose_from(panel, names: tuple[str, ...]) -> dict:
    """The choice among an uploaded file's columns, hidden where there is none."""
    return {panel.column: gr.update(choices=names, value=names[0] if names else None, visible=len(names) > 1)}


def is_own(source) -> bool:
    """Whether a text that comes in that way is the visitor's."""
    return source in (PASTE, UPLOAD, DATASET)


def in_hand(
    context: AppContext, panels: Panels, owner: str, asked: TextRequest
) -> Generator[dict, None, TextSource | None]:
    """The text that was asked for; None where it could not be fetched, which was said then.

    Fetching is a job of its own: a hub may be slow, and no other visitor should wait for it.
    """
    if isinstance(asked, TextSource):
        return asked
    texts: list[TextSource] = []
    yield from watched(
        context, panels, owner, f"Reading {asked.name}", asked.read, lambda read: texts.append(read) or {},
        kind="read", line=None,
    )  # fmt: skip
    return texts[0] if texts else None
