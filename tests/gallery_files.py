"""Files of the gallery, made up from shapes alone."""

import transact as ta
from transact.analysis.gallery_model import GalleryModel, Origin, SizePoint, SizeSweep
from transact.observing.statistics import CalibrationRecord

RECORD = CalibrationRecord(
    name="Some text", fingerprint="0" * 16, num_samples=20, num_tokens=1_000, seq_len=50, seed=0,
    protocol="each text one sequence", available_tokens=2_000, requested_samples=20,
)  # fmt: skip


def spec_of(layers: int = 4, heads: int = 4, groups: int = 2, channels: int = 48) -> ta.ModelSpec:
    """A Llama's shapes."""
    values = ta.ModelSpec.from_dict(_LLAMA).to_dict()
    shape = {"num_attention_heads": heads, "num_key_value_heads": groups, "intermediate_size": channels}
    return ta.ModelSpec.from_dict({**values, "layers": [shape] * layers})


_LLAMA = {
    "family": "llama", "hidden_size": 32, "head_dim": 8, "vocab_size": 100, "max_position_embeddings": 64,
    "tie_word_embeddings": True, "qkv_bias": False, "output_bias": False, "mlp_bias": False, "own_head_norms": False,
    "other_parameters": 0,
    "layers": [{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}],
}  # fmt: skip


def facts(
    spec: ta.ModelSpec | None = None, *, name: str = "Small-4L", source: str | None = "some/model"
) -> GalleryModel:
    """A model without its weights: random scores under two metrics, and a sweep of three measured sizes."""
    spec = spec or spec_of()
    whole, fingerprint = spec.num_parameters, f"{spec.fingerprint}/weights"
    points = [(0.0, whole, 10.0, True), (0.2, whole * 9 // 10, 13.0, True), (0.5, whole * 7 // 10, 40.0, True)]
    points += [(0.1, whole * 19 // 20, 11.4, False)]
    return GalleryModel(
        name=name,
        spec=spec,
        fingerprint=fingerprint,
        origin=Origin("made up", "none", source),
        calibration=RECORD,
        dtype="float32",
        scores={metric: _scores(spec, metric, fingerprint) for metric in ("transact", "magnitude", "random")},
        sweep=SizeSweep("Another text", 512, 128, "windows", "transact", "least_squares", "channels first",
                        tuple(SizePoint(*point) for point in points)),
        versions={"transact": ta.__version__},
    )  # fmt: skip


def _scores(spec: ta.ModelSpec, metric: str, fingerprint: str) -> ta.ImportanceScores:
    drawn = ta.ImportanceScores.random(spec, RECORD.seed)
    scaled = 1.0 if metric == "random" else 300.0
    return ta.ImportanceScores.from_channels(
        metric,
        tuple(scaled * channels.flatten() for channels in drawn.attention_channels),
        tuple(scaled * channels for channels in drawn.mlp_channels),
        spec,
        fingerprint=fingerprint,
        calibration=RECORD.name,
        rotary_pairs=drawn.rotary_pairs,
        layers=drawn.layers,
    )
