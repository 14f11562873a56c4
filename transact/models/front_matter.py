"""The metadata of an untrusted card: the YAML between two lines of dashes at its head.

YAML aliases can repeat a part, and the repetition again, so that a few lines stand for more values than memory holds.
So few aliases are accepted, and no file that is larger than cards are.
"""

from pathlib import Path

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

_MAX_BYTES = 5_000_000
"""The largest cards, those of datasets with a thousand configs, have one or two."""
_MAX_ALIASES = 20
"""With so few, nested as deeply as possible, a part is repeated some thousand times."""


class _Loader(yaml.SafeLoader):
    aliases = 0

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > _MAX_ALIASES:
                raise yaml.YAMLError(f"it repeats parts of itself more than {_MAX_ALIASES} times")
        return super().compose_node(parent, index)


def front_matter(card: Path) -> dict:
    """The settings at the head of a card, empty where it has none. Raises `ValueError`, `YAMLError` and `OSError`."""
    block = REGEX_YAML_BLOCK.search(_text(card))
    return _mapping(block[2]) if block else {}


def settings(file: Path) -> dict:
    """The settings of a file that is YAML as a whole; raises as `front_matter` does."""
    return _mapping(_text(file))


def _text(file: Path) -> str:
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise ValueError(f"{file.name} has {size / 1e6:,.0f} MB, and at most {_MAX_BYTES / 1e6:.0f} MB are read")
    return file.read_text(encoding="utf-8")


def _mapping(text: str) -> dict:
    value = yaml.load(text, Loader=_Loader)  # a safe loader
    if not isinstance(value, dict | None):
        raise ValueError("its settings are no mapping")
    return value or {}
