"""What one layer keeps."""

from dataclasses import dataclass, replace

from transact.spec.model_spec import LayerShape


@dataclass(frozen=True)
class LayerPlan:
    """What one layer keeps: sorted indices into the layer as it is before the cut.

    `kept_heads` are query heads of the kept groups: all of them, or the same number of each. `kept_pairs` and
    `kept_value_channels` have one tuple for each kept group, the same number in each, and are empty where heads stay as
    wide as they are: the RoPE pairs that its queries and keys keep (pair i rotates dimensions i and i + width / 2), and
    the channels that its values and all its heads' outputs keep.
    """

    kept_head_groups: tuple[int, ...]
    kept_heads: tuple[int, ...]
    kept_channels: tuple[int, ...]
    kept_pairs: tuple[tuple[int, ...], ...] = ()
    kept_value_channels: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def first(cls, small: LayerShape, large: LayerShape) -> "LayerPlan":
        """The first groups, the first heads in each and the first channels of a larger layer, as `small` has them."""
        groups = tuple(range(small.num_key_value_heads))
        heads = tuple(group * large.group_size + place for group in groups for place in range(small.group_size))
        return cls(groups, heads, tuple(range(small.intermediate_size)))

    def with_heads(self, pairs: tuple[tuple[int, ...], ...], value_dim: int) -> "LayerPlan":
        """The same with those RoPE pairs of every kept group, and its first `value_dim` value channels."""
        channels = (tuple(range(value_dim)),) * len(self.kept_head_groups)
        return replace(self, kept_pairs=pairs, kept_value_channels=channels)

    @property
    def head_widths(self) -> dict[str, int | None]:
        """`query_key_dim` and `value_dim` of what is left, None where unchanged."""
        return {
            "query_key_dim": 2 * len(self.kept_pairs[0]) if self.kept_pairs else None,
            "value_dim": len(self.kept_value_channels[0]) if self.kept_value_channels else None,
        }

    def of_each_head(self, by_group: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        """The entry of each kept group, repeated for each of its kept heads."""
        heads = len(self.kept_heads) // len(self.kept_head_groups)
        return tuple(each for each in by_group for _ in range(heads))

    @property
    def shape(self) -> LayerShape:
        """The shape after the cut."""
        return LayerShape(len(self.kept_heads), len(self.kept_head_groups), len(self.kept_channels))
