"""What llama.cpp's architectures can hold, and which of them can hold a family, as data.

An architecture says what its graph reads and computes. A family lists those that compute its function, the most
usual one first; the first that can hold a model is taken. Adding a family is one entry in `ARCHITECTURES_OF` and, where
llama.cpp has an architecture of its own for it, one `Architecture`.

Source: `load_arch_tensors` and the graphs in `src/models/` of the llama.cpp that llama-cpp-python 0.3.36 brings.
"""

from dataclasses import dataclass

from transformers import PreTrainedConfig

from transact.errors import SaveRefused
from transact.spec.families import FAMILIES
from transact.spec.model_spec import ModelSpec


@dataclass(frozen=True)
class Architecture:
    """What one `general.architecture` reads and computes: a gated SiLU decoder with RMS norms, and its variations.

    `rotates_neighbours`: RoPE turns rows 2i and 2i + 1 of a head together, where `transformers` turns i and
    i + head_dim / 2, so the rows of query and key are written in that order. `per_layer`: the sizes of every layer are
    its own. `frequency_factors`: reads `rope_freqs`, by which RoPE's angles are divided. `output_bias`, `mlp_bias`:
    adds these where the file has them; all add those of query, key and value. `square_attention`: takes the width of
    all heads together to be the hidden size. `scales`: the configuration's multipliers, and the file's keys for them.
    """

    name: str
    rotates_neighbours: bool = True
    per_layer: bool = False
    frequency_factors: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    square_attention: bool = False
    scales: tuple[tuple[str, str], ...] = ()

    def lacks(self, spec: ModelSpec, *, scaled_rope: bool) -> str | None:
        """What a model of this spec needs and the architecture lacks; None where it can hold the model."""
        width = spec.layers[0].num_attention_heads * spec.head_dim
        if not spec.is_uniform and not self.per_layer:
            return "layers of different sizes"
        if self.square_attention and width != spec.hidden_size:
            return f"heads that are {width} wide together in a hidden size of {spec.hidden_size}"
        if scaled_rope and not self.frequency_factors:
            return "scaled RoPE frequencies"
        for name in ("output_bias", "mlp_bias"):
            if getattr(spec, name) and not getattr(self, name):
                return f"the {name.replace('_', ' ')}"
        return None


LLAMA = Architecture("llama")
DECI = Architecture("deci", per_layer=True)
QWEN2 = Architecture(
    "qwen2", rotates_neighbours=False, frequency_factors=False, output_bias=False, mlp_bias=False, square_attention=True
)
GRANITE = Architecture(
    "granite",
    scales=(
        ("embedding_multiplier", "granite.embedding_scale"),
        ("attention_multiplier", "granite.attention.scale"),
        ("residual_multiplier", "granite.residual_scale"),
        ("logits_scaling", "granite.logit_scale"),
    ),
)

ARCHITECTURES_OF: dict[str, tuple[Architecture, ...]] = {
    "llama": (LLAMA, DECI),
    "mistral": (LLAMA, DECI),
    # as `llama` reads the biases of query, key and value too, it holds what is no longer square
    "qwen2": (QWEN2, LLAMA, DECI),
    "granite": (GRANITE,),
}


def known_architectures(spec: ModelSpec, config: PreTrainedConfig) -> tuple[Architecture, ...]:
    """Those that compute the family's function; raises `SaveRefused` where none is known, or heads are narrower."""
    label = spec.layout.label
    if spec.has_narrow_heads:
        raise SaveRefused(
            "The heads of this model have lost dimensions, each its own, which llama.cpp cannot compute. Save a padded "
            "checkpoint; once loaded again it can be written as GGUF."
        )
    if spec.family not in ARCHITECTURES_OF:
        known = ", ".join(FAMILIES[family].label for family in ARCHITECTURES_OF)
        raise SaveRefused(
            f"{label} cannot be written as GGUF: it is not known here how llama.cpp computes it. Known are {known}. "
            "Save the checkpoint instead, which llama.cpp's own converter may take."
        )
    if config.hidden_act != "silu":
        raise SaveRefused(
            f"This {label} has the activation {config.hidden_act}, llama.cpp computes SiLU there. Save the checkpoint "
            "instead."
        )
    return ARCHITECTURES_OF[spec.family]


def fitting(architectures: tuple[Architecture, ...], spec: ModelSpec, *, scaled_rope: bool) -> Architecture:
    """The first that can hold the model; raises `SaveRefused` with what each of them lacks.

    `scaled_rope`: RoPE's frequencies are not the plain ones.
    """
    reasons = []
    for architecture in architectures:
        lacking = architecture.lacks(spec, scaled_rope=scaled_rope)
        if lacking is None:
            return architecture
        reasons.append(f"{architecture.name} has no {lacking}")
    raise SaveRefused(
        f"llama.cpp cannot hold this {spec.layout.label}: {'; '.join(reasons)}. Save the checkpoint instead; where "
        "layers differ it is padded with zeros, and once loaded again it can be written as GGUF."
    )
