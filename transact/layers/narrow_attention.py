"""Attention whose heads have lost some of their dimensions, each key/value head its own.

RoPE turns dimensions i and i + head_dim / 2 of queries and keys together, by an angle that belongs to i. What is kept
of queries and keys is therefore whole pairs, with their own angles; the scale of the logits stays that of the whole
head. What goes of them adds nothing to a logit, and what goes of the values adds nothing to the output, so this
computes what the whole heads would with zeros in those places. No stock class can hold it: all have one width for
queries, keys and values, and give its k-th pair the k-th angle.
"""

import sys
from functools import cache

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from transact.errors import CheckpointBroken
from transact.spec.family import Family
from transact.spec.layer_plan import LayerPlan

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)  # fmt: skip


class NarrowAttention(torch.nn.Module):
    """Replaces a stock attention module, with its projections, settings and hooks.

    `NarrowAttention.of` makes it an instance of the stock class too, by which `transformers` finds modules that return
    attentions. `pairs` int64 [group, pair]: which of the whole head's RoPE pairs the queries and keys of each key/value
    head are. It is a buffer, so that it is saved with the weights.
    """

    @staticmethod
    def of(stock: torch.nn.Module, pairs: torch.Tensor) -> "NarrowAttention":
        """The replacement of `stock`, a stock module or another `NarrowAttention`."""
        stock_class: type = type(stock)
        kind = stock_class if isinstance(stock, NarrowAttention) else _kind(stock_class)
        return kind(stock, pairs)

    def __init__(self, stock: torch.nn.Module, pairs: torch.Tensor):
        torch.nn.Module.__init__(self)
        for name in _HOOKS:
            setattr(self, name, getattr(stock, name))
        self.config, self.layer_idx, self.scaling = stock.config, stock.layer_idx, stock.scaling
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = stock.q_proj, stock.k_proj, stock.v_proj, stock.o_proj
        self.register_buffer("pairs", pairs)
        self.head_dim, self.num_key_value_groups = stock.head_dim, stock.num_key_value_groups
        self.is_causal, self.attention_dropout = True, stock.attention_dropout
        # of some families only: layers without RoPE (SmolLM3), dropout behind attention (Starcoder2)
        self.use_rope = bool(getattr(stock, "use_rope", True))
        self.residual_dropout = getattr(stock, "residual_dropout", 0.0)
        self.sliding_window = getattr(stock, "sliding_window", getattr(stock.config, "sliding_window", None))
        own = isinstance(stock, NarrowAttention)
        self._eager = stock._eager if own else sys.modules[type(stock).__module__].eager_attention_forward

    def __reduce__(self):
        return _blank, (type(self).__bases__[1],), self.__dict__

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        cache=None,
        past_key_values=None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As stock attention: [sample, seq, hidden] -> [sample, seq, hidden], and attention weights where it has them.

        `position_embeddings`: cosines and sines of the whole head, [sample, seq, head_dim], whatever scales them;
        `past_key_values`: what stock layers called the cache before transformers 5.24.
        """
        shape = hidden_states.shape[:-1]
        by_group = (*shape, len(self.pairs), -1, 2 * self.pairs.shape[1])  # [sample, seq, group, head, query_key_dim]
        query, key = self.q_proj(hidden_states).view(by_group), self.k_proj(hidden_states).view(by_group)
        value = self.v_proj(hidden_states).view(*shape, len(self.pairs), -1).transpose(1, 2)
        if self.use_rope:
            assert position_embeddings is not None, "the decoder gives them to every layer"
            columns = torch.cat((self.pairs, self.pairs + self.head_dim // 2), dim=1)
            # [sample, seq, head_dim] -> [sample, seq, group, 1, query_key_dim]
            cos, sin = (angles[..., columns].unsqueeze(-2) for angles in position_embeddings)
            query, key = query * cos + _half_turned(query) * sin, key * cos + _half_turned(key) * sin
        # [sample, seq, group, head, query_key_dim] -> [sample, head, seq, query_key_dim]
        query, key = query.flatten(2, 3).transpose(1, 2), key.flatten(2, 3).transpose(1, 2)
        cache = past_key_values if cache is None else cache
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx, kwargs=kwargs)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, self._eager)
        output, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        output = self.o_proj(output.reshape(*shape, -1).contiguous())
        return torch.nn.functional.dropout(output, p=self.residual_dropout, training=self.training), weights


@cache
def _kind(stock: type) -> type[NarrowAttention]:
    """A subclass of `NarrowAttention` and that stock class."""
    return type(f"Narrow{stock.__name__}", (NarrowAttention, stock), {"__module__": __name__})


def _blank(stock: type) -> NarrowAttention:
    """An empty instance to unpickle or copy into; its class is made at run time and cannot be imported by name."""
    kind = _kind(stock)
    return kind.__new__(kind)


def narrow_attention(layer: torch.nn.Module, kept: LayerPlan, layout: Family) -> None:
    """Replace the attention of a layer, whose projections are cut already, for what `kept` leaves of its heads."""
    old = layer.get_submodule(layout.attention)
    layer.set_submodule(layout.attention, NarrowAttention.of(old, kept_pairs(old, kept)))


def kept_pairs(attention: torch.nn.Module, kept: LayerPlan) -> torch.Tensor:
    """Which pairs of the whole head are left, int64 [group, pair], of an attention module as it is before the cut."""
    device = attention.q_proj.weight.device
    if isinstance(attention, NarrowAttention):
        pairs = attention.pairs[list(kept.kept_head_groups)]
    else:
        pairs = torch.arange(attention.head_dim // 2, device=device).repeat(len(kept.kept_head_groups), 1)
    return pairs.gather(1, torch.tensor(kept.kept_pairs, device=device)) if kept.kept_pairs else pairs


def check_pairs(model: torch.nn.Module) -> None:
    """Raise `CheckpointBroken` unless the pairs that were read from a file are pairs of the head."""
    for module in model.modules():
        if isinstance(module, NarrowAttention):
            pairs, whole = module.pairs, module.head_dim // 2
            rising = pairs.dtype == torch.int64 and bool((pairs[:, 1:] > pairs[:, :-1]).all())
            if not rising or int(pairs[:, 0].min()) < 0 or int(pairs[:, -1].max()) >= whole:
                raise CheckpointBroken(
                    f"Layer {module.layer_idx} names RoPE pairs that a head of {module.head_dim} dimensions does not "
                    "have. Use files that belong together."
                )


def _half_turned(states: torch.Tensor) -> torch.Tensor:
    """Each pair (a, b) as (-b, a), where the first half of a head holds the a and the second the b."""
    first, second = states.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)
