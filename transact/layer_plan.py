"""What one layer keeps."""

from dataclasses import dataclass

from transact.spec import LayerShape


@dataclass(frozen=True)
class LayerPlan:
    """What one layer keeps: sorted indices into the layer as it is before the cut.

    `kept_heads` are query heads of the kept groups: all of them, or as many of each.
    """

    kept_head_groups: tuple[int, ...]
    kept_heads: tuple[int, ...]
    kept_channels: tuple[int, ...]

    @classmethod
    def of_groups(cls, groups: tuple[int, ...], channels: tuple[int, ...], group_size: int) -> "LayerPlan":
        """Those head groups, whole, and those channels."""
        return cls(groups, heads_of(groups, group_size), channels)

    @classmethod
    def first(cls, small: LayerShape, large: LayerShape) -> "LayerPlan":
        """The first groups, the first heads in each and the first channels of a larger layer, as `small` has them."""
        groups = tuple(range(small.num_key_value_heads))
        heads = tuple(group * large.group_size + place for group in groups for place in range(small.group_size))
        return cls(groups, heads, tuple(range(small.intermediate_size)))

    @property
    def shape(self) -> LayerShape:
        """What is left."""
        return LayerShape(len(self.kept_heads), len(self.kept_head_groups), len(self.kept_channels))


def heads_of(groups: tuple[int, ...], group_size: int) -> tuple[int, ...]:
    """All query heads of those groups, sorted where they are."""
    return tuple(head for group in groups for head in range(group * group_size, (group + 1) * group_size))
