"""TransAct Explorer's library: look into a language model's redundancy and cut it away.

    load -> observe -> score -> make_plan -> prune -> evaluate -> save

Every arrow is one function, every value between them is frozen. `masked` tries a plan without cutting.
"""

__version__ = "1.0.0"

from transact.analysis.agreement import (
    CalibrationComparison,
    MetricAgreement,
    OverlapCurve,
    agreement,
    compare_calibrations,
)
from transact.analysis.attention_patterns import AttentionPatterns, attention_patterns
from transact.analysis.gallery_model import GalleryModel
from transact.analysis.stability import Spread, Stability, stability
from transact.analysis.sweep import SweepPoint, search_split, sparsity_grid, sweep
from transact.analysis.top_tokens import Reading, reads
from transact.analysis.width_search import search_widths
from transact.assets import GALLERY, SAMPLES
from transact.compression.compress import compress
from transact.compression.frontier import Frontier, probe_frontier, reachable_sizes
from transact.compression.recipe import WIDTHS, Recipe
from transact.cutting.masking import knocked_out, masked
from transact.cutting.prune import prune
from transact.errors import (
    CheckpointBroken,
    InvalidOption,
    InvalidPlan,
    InvalidPrompt,
    InvalidTarget,
    InvalidTask,
    InvalidText,
    ModelNotFound,
    ModelUnsupported,
    NonFiniteActivations,
    NotEnoughMemory,
    PushRefused,
    SaveRefused,
    TrainingFailed,
    TransactError,
)
from transact.evaluation.evaluate import EvalReport, evaluate, evaluation_bytes, perplexity
from transact.evaluation.lm_eval_tasks import TaskResults, TaskScore, check_tasks, evaluate_tasks
from transact.evaluation.probes import Probe, ProbeAnswer, ProbeResult, load_probes, run_probe
from transact.evaluation.speed import Speed, measure_speed
from transact.evaluation.speed import differ as speeds_differ
from transact.export.checkpoint import save
from transact.export.gguf.writer import GGUF_TYPES, GgufReport, save_gguf
from transact.export.hub_push import Pushed, check_push, push
from transact.export.proof import Proof, prove
from transact.export.report import SaveReport
from transact.models.hub_cache import trim_hub_cache
from transact.models.loaded_model import LoadedModel
from transact.models.loading import fetch, load
from transact.models.preflight import Preflight, preflight
from transact.models.sources import BUNDLED
from transact.observing.observe import grams_for_repair, observe, sample_bytes
from transact.observing.statistics import ActivationStatistics, Moments, Peaks
from transact.planning.allocation import ALLOCATIONS
from transact.planning.make_plan import make_plan
from transact.planning.search import search_bytes, search_plan
from transact.planning.widths import widths_bytes
from transact.progress import NO_PROGRESS, Cancelled, Progress
from transact.recovery.recover import Recovered, recover
from transact.recovery.savepoints import RecoveryPoint, Savepoints
from transact.recovery.schedule import Phase, RecoveryCost, RecoverySettings, phases, recovery_cost
from transact.recovery.training_text import StreamedText
from transact.repair.best import best_bytes
from transact.repair.repairs import COMPENSATIONS, REPAIRS, Repair
from transact.runtime.memory import ran_out_of_memory
from transact.scoring.metrics import METRICS, Metric
from transact.scoring.scores import ImportanceScores, available_metrics, score
from transact.spec.kept_counts import MULTIPLES
from transact.spec.layer_plan import LayerPlan
from transact.spec.locks import Locks
from transact.spec.model_spec import LayerShape, ModelSpec
from transact.spec.plan import PruningPlan
from transact.spec.target import GRANULARITIES, INSIDE_HEADS, PruningTarget
from transact.streaming import StreamedModel, load_streamed, stream_observe, stream_prune
from transact.text.calibration import CalibrationSet
from transact.text.generation import generate, next_tokens
from transact.text.held_out import hold_out
from transact.text.tokens import EvaluationSet

__all__ = [
    "ALLOCATIONS",
    "BUNDLED",
    "COMPENSATIONS",
    "GALLERY",
    "GGUF_TYPES",
    "GRANULARITIES",
    "INSIDE_HEADS",
    "METRICS",
    "REPAIRS",
    "MULTIPLES",
    "NO_PROGRESS",
    "SAMPLES",
    "WIDTHS",
    "ActivationStatistics",
    "AttentionPatterns",
    "CalibrationComparison",
    "CalibrationSet",
    "Cancelled",
    "CheckpointBroken",
    "EvalReport",
    "EvaluationSet",
    "Frontier",
    "GalleryModel",
    "GgufReport",
    "ImportanceScores",
    "InvalidOption",
    "InvalidPlan",
    "InvalidPrompt",
    "InvalidTarget",
    "InvalidTask",
    "InvalidText",
    "LayerPlan",
    "LayerShape",
    "LoadedModel",
    "Locks",
    "Metric",
    "MetricAgreement",
    "ModelNotFound",
    "ModelSpec",
    "ModelUnsupported",
    "Moments",
    "NonFiniteActivations",
    "NotEnoughMemory",
    "OverlapCurve",
    "Peaks",
    "Phase",
    "Preflight",
    "Probe",
    "ProbeAnswer",
    "ProbeResult",
    "Progress",
    "Proof",
    "PruningPlan",
    "PruningTarget",
    "PushRefused",
    "Pushed",
    "Reading",
    "Recovered",
    "Recipe",
    "RecoveryPoint",
    "RecoveryCost",
    "RecoverySettings",
    "Repair",
    "SaveRefused",
    "SaveReport",
    "Savepoints",
    "Speed",
    "Spread",
    "Stability",
    "StreamedModel",
    "StreamedText",
    "SweepPoint",
    "TaskResults",
    "TaskScore",
    "TrainingFailed",
    "TransactError",
    "agreement",
    "attention_patterns",
    "available_metrics",
    "best_bytes",
    "check_push",
    "check_tasks",
    "compare_calibrations",
    "compress",
    "evaluate",
    "evaluate_tasks",
    "evaluation_bytes",
    "fetch",
    "generate",
    "grams_for_repair",
    "hold_out",
    "knocked_out",
    "load",
    "load_probes",
    "load_streamed",
    "make_plan",
    "masked",
    "measure_speed",
    "next_tokens",
    "probe_frontier",
    "reachable_sizes",
    "speeds_differ",
    "observe",
    "perplexity",
    "phases",
    "preflight",
    "prove",
    "prune",
    "ran_out_of_memory",
    "push",
    "reads",
    "recover",
    "recovery_cost",
    "run_probe",
    "sample_bytes",
    "save",
    "save_gguf",
    "score",
    "search_bytes",
    "search_plan",
    "search_split",
    "search_widths",
    "sparsity_grid",
    "stability",
    "stream_observe",
    "stream_prune",
    "sweep",
    "trim_hub_cache",
    "widths_bytes",
]
