"""The name of a model, and whether there are weights behind it."""

from dataclasses import dataclass

from ui.errors import NotYet

GALLERY = "gallery:"
"""How the source of a model begins that is open from the gallery, without its weights."""


@dataclass(frozen=True)
class ModelKey:
    """The three things that were asked for when a model was loaded; names it in the registry."""

    source: str
    revision: str | None = None
    dtype: str = "auto"

    @property
    def has_weights(self) -> bool:
        """Whether it can be loaded; the gallery holds what is known of a model, and not the model."""
        return not self.source.startswith(GALLERY)

    @property
    def name(self) -> str:
        """What people call it: the last part of a hub id or a path."""
        return self.source.removeprefix(GALLERY).rstrip("/").rsplit("/", 1)[-1]

    def need_weights(self) -> None:
        """Raise `NotYet`, with what to do, for a model of the gallery: everything that runs or cuts asks here."""
        if not self.has_weights:
            raise NotYet(
                f"This needs the weights of {self.name[:100]}, and the gallery holds its scores alone. Press “Load the "
                "weights”, or give their hub id or folder under “Model” and press Load."
            )
