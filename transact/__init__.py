"""TransAct Explorer's library: look into a language model's redundancy and cut it away.

    load -> observe -> score -> make_plan -> prune -> evaluate -> save

Every arrow is one function, every value between them is frozen. `masked` tries a plan without cutting.
"""

__version__ = "1.0.0"

from transact.allocation import ALLOCATIONS
from transact.analysis import CalibrationComparison, MetricAgreement, OverlapCurve, agreement, compare_calibrations
from transact.assets import SAMPLES
from transact.calibration import CalibrationSet, EvaluationSet
from transact.checkpoint import SaveReport, save
from transact.compensation import COMPENSATIONS
from transact.counts import MULTIPLES
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
from transact.evaluation import EvalReport, evaluate, evaluation_bytes, perplexity
from transact.export.gguf import GGUF_TYPES, GgufReport, save_gguf
from transact.export.proof import Proof, prove
from transact.export.sharing import Pushed, check_push, push
from transact.generation import generate
from transact.hub_cache import trim_hub_cache
from transact.importance import METRICS, ImportanceScores, Metric, available_metrics, score
from transact.layer_plan import LayerPlan
from transact.loading import LoadedModel, Preflight, load, preflight
from transact.locks import Locks
from transact.masking import masked
from transact.memory import ran_out_of_memory
from transact.observe import grams_for_repair, observe, sample_bytes
from transact.plan import PruningPlan, make_plan
from transact.probes import Probe, ProbeResult, load_probes, run_probe
from transact.progress import NO_PROGRESS, Cancelled, Progress
from transact.reading import Reading, reads
from transact.recovery import Recovered, recover
from transact.savepoints import RecoveryPoint, Savepoints
from transact.schedule import Phase, RecoveryCost, RecoverySettings, phases, recovery_cost
from transact.search import search_bytes, search_plan
from transact.sources import BUNDLED
from transact.spec import LayerShape, ModelSpec
from transact.speed import Speed, measure_speed
from transact.speed import differ as speeds_differ
from transact.stability import Spread, Stability, stability
from transact.standard_tasks import TaskResults, TaskScore, check_tasks, evaluate_tasks
from transact.statistics import ActivationStatistics, Moments, Peaks
from transact.streaming import StreamedModel, load_streamed, stream_observe, stream_prune
from transact.surgery import best_bytes, prune
from transact.sweep import SweepPoint, search_split, sparsity_grid, sweep
from transact.target import GRANULARITIES, INSIDE_HEADS, PruningTarget
from transact.training_text import StreamedText

__all__ = [
    "ALLOCATIONS",
    "BUNDLED",
    "COMPENSATIONS",
    "GGUF_TYPES",
    "GRANULARITIES",
    "INSIDE_HEADS",
    "METRICS",
    "MULTIPLES",
    "NO_PROGRESS",
    "SAMPLES",
    "ActivationStatistics",
    "CalibrationComparison",
    "CalibrationSet",
    "Cancelled",
    "CheckpointBroken",
    "EvalReport",
    "EvaluationSet",
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
    "ProbeResult",
    "Progress",
    "Proof",
    "PruningPlan",
    "PruningTarget",
    "PushRefused",
    "Pushed",
    "Reading",
    "Recovered",
    "RecoveryPoint",
    "RecoveryCost",
    "RecoverySettings",
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
    "available_metrics",
    "best_bytes",
    "check_push",
    "check_tasks",
    "compare_calibrations",
    "evaluate",
    "evaluate_tasks",
    "evaluation_bytes",
    "generate",
    "grams_for_repair",
    "load",
    "load_probes",
    "load_streamed",
    "make_plan",
    "masked",
    "measure_speed",
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
    "sparsity_grid",
    "stability",
    "stream_observe",
    "stream_prune",
    "sweep",
    "trim_hub_cache",
]
