"""One pass over the calibration text, recording the transitional activations.

The transitional activations of a layer (TransAct, arXiv 2407.05690) are the inputs of its `o_proj` and
`down_proj`. Of each channel x_j the pass keeps Σ x_j and Σ x_j² over all real tokens; every metric follows
from these and from the weights, so switching metrics needs no second pass. Of each layer it keeps the sum of the
cosines between its input and its output, which tell how much the layer does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from transact.errors import InvalidOption, NotEnoughMemory, whole_number
from transact.layers.hooks import CallFunction, hooks_suspended, on_calls, on_inputs
from transact.models.loaded_model import Batch, LoadedModel
from transact.observing.accumulators import RealTokens
from transact.observing.layer_recorder import LayerRecord, LayerRecorder, RecordOptions
from transact.observing.statistics import ActivationStatistics, CalibrationRecord
from transact.observing.taylor import LayerProducts, gradient_products
from transact.progress import NO_PROGRESS, Cancelled, Progress, StoppedEarly, part, until
from transact.runtime.devices import free_bytes
from transact.runtime.distributed import rank_and_count, share
from transact.spec.model_spec import SITES, ModelSpec
from transact.text.calibration import CalibrationSet

SoFar = Callable[[], ActivationStatistics]
"""Makes the statistics of the samples that were read until now, in milliseconds."""
BY_LAYER = "by_layer"
_GRAM_SITES = {False: (), True: SITES, "attention": ("attention",), BY_LAYER: ()}
_MAX_GRAM_BYTES = 2_000_000_000
_BATCH_SIZE = 8
TOKENS_IN_CACHE = 1024
"""Tokens of a batch on a CPU: more do not stay in the processor's cache, and take longer each (measured)."""


def observe(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    *,
    gram: bool | str = False,
    taylor: bool = False,
    queries: bool = False,
    samples: bool = False,
    top_k: int = 0,
    batch_size: int = _BATCH_SIZE,
    report: Callable[[SoFar], None] = lambda so_far: None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = NO_PROGRESS,
) -> ActivationStatistics:
    """Run the calibration text through the decoder and sum up its transitional activations.

    The output head is not computed; padding never counts. At most `batch_size` samples pass at a time, on a CPU
    fewer where they are long. Progress is in tokens; cancellation is
    checked at every layer. The model is unchanged afterwards, also when the pass fails.

    Where `accelerate launch` started several processes, all of them call this; each takes its share of the batches,
    and all get the statistics of the whole text.

    - `gram=True` also sums X^T X of every site, which least-squares repair needs; `gram="attention"` of the inputs of
      `o_proj` alone, which is all that `search_plan` needs. `gram="by_layer"` gathers none now: least-squares
      repair does, in a forward pass of its own that holds one layer's matrices at a time.
    - `taylor=True` also takes the gradient of the loss, in a pass of its own, for the metric of that name: see
      `transact.observing.taylor`. Every token then counts twice in the progress, and scores depend a little on
      `batch_size`.
    - `queries=True` also sums the outputs of `q_proj` and `k_proj`, which plans with a `keep_query_key_dim` need.
    - `samples=True` also keeps the sums of every sample, for `ActivationStatistics.subset` and `stability`.
    - `top_k` > 0 also keeps, for every head (the norm over head_dim at a token) and every MLP channel (the size
      of its activation), the `top_k` samples where it is largest and the token where it is, for `reads`; all of
      the samples if there are fewer.
    - `report` is called after every batch but the last with a function that makes the statistics so far, which it may
      call until it returns: those of `calibration.longest(…)`, as the longest samples are read first.
    - `stop` may end the work early, with the statistics so far as the result: `tokens` holds what was read. Before the
      first batch is through there are none, and `Cancelled` is raised.

    Statistics so far have neither Gram matrices nor gradients, and of several processes none reports or ends early.

    Raises `NonFiniteActivations`, naming the layer, `InvalidText` for ids outside the vocabulary,
    `InvalidOption` for a number out of range and for queries of a family that keeps its heads whole, and
    `NotEnoughMemory` where the Gram matrices, the sums of every sample or the backward pass would not fit.
    """
    options = checked(
        loaded, calibration, gram=gram, queries=queries, samples=samples, top_k=top_k, batch_size=batch_size
    )
    progress = until(progress, stop) if rank_and_count()[1] == 1 else progress
    pass_ = _Pass(loaded, calibration, part(progress, 0, 2) if taylor else progress, options)
    try:
        records = pass_.run(batch_size, lambda: report(pass_.so_far))
        if taylor:
            products = gradient_products(loaded, calibration, batch_size=batch_size, progress=part(progress, 1, 2))
            records = list(map(_with_gradients, records, products))
    except StoppedEarly:
        return pass_.so_far()
    return gathered_statistics(loaded, calibration, records, gram=gram, samples=samples)


def _with_gradients(record: LayerRecord, products: LayerProducts) -> LayerRecord:
    return replace(
        record,
        attention=replace(record.attention, taylor=products.attention),
        mlp=replace(record.mlp, taylor=products.mlp),
    )


FinalStates = dict[tuple[int, ...], torch.Tensor]
"""What the output head reads at every token of a sample, [seq, hidden], by the sample's ids."""


def observe_with_states(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    *,
    gram: bool | str,
    enough: Callable[[int], bool] = lambda num_tokens: False,
    expected_tokens: int | None = None,
    progress: Progress,
) -> tuple[ActivationStatistics, FinalStates]:
    """`observe`, and what the output head would have read: who needs both reads the text once.

    After every batch `enough` is asked with the number of tokens read; once it says so, the statistics are of the text
    up to there. As many are read as it lets pass, whatever was `expected_tokens`, which only progress is measured by.
    """
    options = checked(loaded, calibration, gram=gram, samples=False, top_k=0, batch_size=_BATCH_SIZE)
    pass_ = _Pass(loaded, calibration, progress, options, states={})
    pass_.total = expected_tokens or calibration.num_tokens
    records = pass_.run(_BATCH_SIZE, enough=enough)
    read = calibration.longest(pass_.num_read or calibration.num_samples)
    return gathered_statistics(loaded, read, records, gram=gram, samples=False), pass_.states or {}


def checked(
    loaded: LoadedModel,
    calibration: CalibrationSet,
    *,
    gram: bool | str,
    samples: bool,
    top_k: int,
    batch_size: int,
    queries: bool = False,
) -> RecordOptions:
    """The options of `observe` as what a pass keeps; raises as `observe` does before its pass."""
    whole_number(batch_size, "batch_size", least=1)
    top_k = whole_number(top_k, "top_k")
    calibration.check_fits(loaded)
    if gram not in _GRAM_SITES:
        raise InvalidOption(f'gram is {gram!r}; give True, False, "attention" or "by_layer".')
    whole = loaded.layout.no_head_dim_pruning_reason
    if queries and whole is not None:
        raise InvalidOption(f"{loaded.layout.label} keeps its heads whole: {whole}. Observe with queries=False.")
    options = RecordOptions(_GRAM_SITES[gram], queries, calibration.num_samples if samples else 0, top_k)
    _check_fits(loaded, options.gram_sites, options.num_samples)
    return options


def most_tokens(loaded: LoadedModel) -> int | None:
    """The most positions of one batch, where the device limits them."""
    return TOKENS_IN_CACHE if loaded.device.type == "cpu" else None


def gathered_statistics(
    loaded: LoadedModel, calibration: CalibrationSet, records: Sequence[LayerRecord], *, gram: bool | str, samples: bool
) -> ActivationStatistics:
    """The layers' records as one value."""
    return ActivationStatistics(
        attention=tuple(record.attention for record in records),
        mlp=tuple(record.mlp for record in records),
        num_tokens=calibration.num_tokens,
        calibration=CalibrationRecord.of(calibration),
        fingerprint=loaded.fingerprint,
        dtype=str(loaded.dtype).removeprefix("torch."),
        sample_tokens=calibration.lengths if samples else (),
        tokens=calibration,
        head_peaks=tuple(record.head_peaks for record in records if record.head_peaks is not None),
        channel_peaks=tuple(record.channel_peaks for record in records if record.channel_peaks is not None),
        queries=tuple(record.queries for record in records if record.queries is not None),
        keys=tuple(record.keys for record in records if record.keys is not None),
        residual=tuple(record.residual for record in records),
        gram_by_layer=gram == BY_LAYER,
    )


def gram_bytes(spec: ModelSpec, sites: tuple[str, ...] = SITES) -> int:
    """Bytes that the Gram matrices of all layers take in float64."""
    sizes = {
        "attention": [spec.attention_width(layer) for layer in spec.layers],
        "mlp": [layer.intermediate_size for layer in spec.layers],
    }
    return 8 * sum(size**2 for site in sites for size in sizes[site])


def grams_for_repair(spec: ModelSpec) -> bool | str:
    """The `observe(gram=…)` that suits least squares: all matrices while they take no more than 2 GB."""
    return True if gram_bytes(spec) <= _MAX_GRAM_BYTES else BY_LAYER


def sample_bytes(spec: ModelSpec, num_samples: int) -> int:
    """Bytes that the sums and square sums of that many samples take in float32, all layers together."""
    num_samples = whole_number(num_samples, "num_samples")
    num_channels = sum(spec.attention_width(layer) + layer.intermediate_size for layer in spec.layers)
    return 2 * 4 * num_samples * num_channels


def _check_fits(loaded: LoadedModel, gram_sites: tuple[str, ...], num_samples: int) -> None:
    """Raise `NotEnoughMemory` unless the Gram matrices, where asked for, and that many samples' sums fit."""
    free = free_bytes(loaded.device)
    requirements = (
        (
            gram_bytes(loaded.spec, gram_sites),
            "The Gram matrices of this model",
            'with gram="by_layer", which repairs one layer at a time'
            if gram_sites == SITES
            else "with gram=False and plan by a metric",
        ),
        (
            sample_bytes(loaded.spec, num_samples),
            f"The sums of each of {num_samples} samples",
            "fewer samples, or with samples=False",
        ),
    )
    for needed, what, instead in requirements:
        if needed > free:
            raise NotEnoughMemory(
                f"{what} need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free. Observe {instead}."
            )
        free -= needed


class _Pass:
    """One observation in progress: the running sums, and the number of tokens done.

    `states`, where given, is filled with those of the samples that this process reads. `kept`: the sums after the last
    whole batch, when `num_read` samples were through; kept by a single process only.
    """

    def __init__(
        self, loaded: LoadedModel, calibration: CalibrationSet, progress: Progress, options: RecordOptions,
        states: FinalStates | None = None,
    ):  # fmt: skip
        self.loaded = loaded
        self.calibration = calibration
        self.progress = progress
        self.options = options
        self.states = states
        self.ids = list(calibration.rows()) if states is not None else []
        self.total = calibration.num_tokens
        self.done = 0
        self.num_read = 0
        self.kept: list[LayerRecord] = []
        self.processes = rank_and_count()[1]
        layers = range(loaded.spec.num_hidden_layers)
        self.recorders = [LayerRecorder(loaded.spec, index, options, loaded.device_of_layer(index)) for index in layers]

    def run(
        self,
        batch_size: int,
        after_batch: Callable[[], None] = lambda: None,
        enough: Callable[[int], bool] = lambda num_tokens: False,
    ) -> list[LayerRecord]:
        """Read all of the text, or until that is enough; `after_batch` is called where more follows, in one process."""
        tokens = most_tokens(self.loaded)
        with torch.inference_mode(), on_inputs(self.functions()), on_calls(self.call_functions()):
            for batch in share(self.calibration.batches(batch_size=batch_size, max_tokens=tokens)):
                self.read(batch)
                if enough(self.done):
                    break
                if 0 < self.num_read < self.calibration.num_samples:
                    with torch.inference_mode(False), hooks_suspended():
                        after_batch()
            self.combine()
        return [recorder.result() for recorder in self.recorders]

    def so_far(self) -> ActivationStatistics:
        """The statistics after the last whole batch; raises `Cancelled` before the first."""
        if not self.kept:
            raise Cancelled
        samples = sorted(self.calibration.by_length[: self.num_read])
        records = [record.of(samples) for record in self.kept]
        read = self.calibration.longest(self.num_read)
        return gathered_statistics(self.loaded, read, records, gram=False, samples=self.options.num_samples > 0)

    def functions(self) -> list[tuple[torch.nn.Module, Callable[[torch.Tensor], None]]]:
        pairs = []
        for layer, recorder in zip(self.loaded.decoder_layers, self.recorders, strict=True):
            for module, record in recorder.functions(layer, lambda: self.tokens):
                pairs.append((module, self._with_progress(record, recorder.index)))
        return pairs

    def call_functions(self) -> list[tuple[torch.nn.Module, CallFunction]]:
        """What adds up the layers' cosines and, with `queries`, the outputs of the query and key projections."""
        return [
            pair
            for layer, recorder in zip(self.loaded.decoder_layers, self.recorders, strict=True)
            for pair in recorder.call_functions(layer, lambda: self.tokens)
        ]

    def _with_progress(self, record: Callable[[torch.Tensor], None], index: int) -> Callable[[torch.Tensor], None]:
        def record_and_report(activations: torch.Tensor) -> None:
            record(activations)
            self._report(self.done + self._batch_tokens() * index // len(self.recorders))

        return record_and_report

    def read(self, batch: Batch) -> None:
        device = self.loaded.device
        self.tokens = RealTokens.of(batch, device)
        output = self.loaded.model.base_model(input_ids=batch.input_ids.to(device), use_cache=False)
        if self.states is not None:
            for sample, length, own in zip(batch.indices, self.tokens.lengths, output.last_hidden_state, strict=True):
                self.states[tuple(self.ids[sample])] = own[:length].clone()
        self.done += self._batch_tokens()
        if self.processes == 1:  # one of several that stopped here would leave the others waiting
            self._check_finite()
            self.kept = [recorder.so_far() for recorder in self.recorders]
            self.num_read += len(batch.indices)
        self._report(self.done)

    def _batch_tokens(self) -> int:
        """Tokens of this batch and, estimated as equal, of those of the other processes."""
        return sum(self.tokens.lengths) * self.processes

    def _report(self, done: int) -> None:
        self.progress(min(done, self.total), self.total, "tokens")

    def combine(self) -> None:
        """The sums of all processes, where there are several."""
        for recorder in self.recorders:
            recorder.combine()
        if self.processes > 1:
            self._check_finite()
            self._report(self.total)

    def _check_finite(self) -> None:
        totals = [recorder.totals().to(self.loaded.device) for recorder in self.recorders]
        if bool(torch.cat(totals).isfinite().all()):
            return
        for recorder in self.recorders:
            recorder.check_finite(self.loaded.dtype)
