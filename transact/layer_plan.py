"""What one layer keeps."""

from dataclasses import dataclass

from transact.spec import LayerShape


@dataclass(frozen=True)
class LayerPlan:
    """What one layer keeps: sorted indices into the layer as it is before the cut."""

    kept_head_groups: tuple[int, ...]
    kept_channels: tuple[int, ...]
    group_size: int

    @classmethod
    def first(cls, shape: LayerShape) -> "LayerPlan":
        """The first heads and channels of a larger layer, as many as `shape` has."""
        groups, channels = tuple(range(shape.num_key_value_heads)), tuple(range(shape.intermediate_size))
        return cls(groups, channels, shape.group_size)

    @property
    def kept_heads(self) -> tuple[int, ...]:
        """Query heads of the kept groups, sorted."""
        size = self.group_size
        return tuple(head for group in self.kept_head_groups for head in range(group * size, (group + 1) * size))
