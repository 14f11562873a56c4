"""What a compression did that followed from the clock, in one line of text: with it the same is done again."""

from dataclasses import dataclass, fields

from transact.errors import InvalidOption, choice, is_finite, shown

WAYS = ("priced", "priced-units", "half-priced", "half-scored", "equal", "balanced")
"""To share out the removal, the most promising first (measured; see docs/benchmarks.md).

By the prices of channels after refitting, with the channels of the highest scores or with those that are dearest; half
way there from equal widths; half way to widths by scores alone; equal widths, channels first; and equal widths with
attention and MLP losing the same share.
"""
PRICED = WAYS[:3]
"""Those that take prices."""
_EXAMPLE = "size=0.75 read=7473 way=equal"


@dataclass(frozen=True)
class Repeat:
    """A size, the share of all parameters that stays, and all that a machine's speed decides.

    `read`: tokens that least squares was solved on, or all where there were fewer; `way`: one of `WAYS`; `priced`:
    tokens for the prices of channels, 0 where they play no part; `steps`: of distillation, of `planned` that the
    learning rate was made for.
    """

    size: float
    read: int
    way: str
    priced: int = 0
    steps: int = 0
    planned: int = 0

    def __str__(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return " ".join(f"{name}={value}" for name, value in values.items() if value)

    @classmethod
    def parse(cls, text: str) -> "Repeat":
        """Read what `str` writes; raises `InvalidOption` for anything else."""
        try:
            values = dict(word.split("=") for word in text.split())
            way = choice(values.pop("way"), WAYS, "way to share out the removal")
            size = float(values.pop("size"))
            repeat = cls(size=size, way=way, **{name: int(value) for name, value in values.items()})
            if not is_finite(size) or min(repeat.read - 1, repeat.priced, repeat.steps, repeat.planned) < 0:
                raise ValueError
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidOption(
                f'repeat is {shown(text)}; give what the card of a compressed model says, as "{_EXAMPLE}".'
            ) from None
        return repeat
