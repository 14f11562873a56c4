"""`observe` for a model whose weights stay in their files: all batches through one layer, then the next."""

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from transact.errors import InvalidOption, SaveRefused
from transact.layers.hooks import on_calls, on_inputs
from transact.models.loaded_model import Batch
from transact.observing.accumulators import RealTokens
from transact.observing.layer_recorder import LayerRecord, LayerRecorder, RecordOptions
from transact.observing.layer_stream import stream
from transact.observing.observe import checked, gathered_statistics, most_tokens
from transact.observing.statistics import ActivationStatistics, Cosines, Moments, Peaks
from transact.progress import NO_PROGRESS, Progress, Repeating
from transact.runtime.distributed import rank_and_count, share
from transact.streaming.layer_log import NOTES, LayerLog
from transact.streaming.streamed_model import StreamedModel, streamed
from transact.text.calibration import CalibrationSet

_VALUES = {
    "attention": Moments,
    "mlp": Moments,
    "residual": Cosines,
    "head_peaks": Peaks,
    "channel_peaks": Peaks,
}


def stream_observe(
    source: str | StreamedModel,
    calibration: CalibrationSet,
    *,
    gram: bool | str = False,
    samples: bool = False,
    top_k: int = 0,
    batch_size: int = 8,
    savepoint: str | Path | None = None,
    device: str = "auto",
    revision: str | None = None,
    progress: Progress = NO_PROGRESS,
) -> ActivationStatistics:
    """As `observe`, with one decoder layer in memory at a time, the used embeddings and the hidden states.

    `source`: a name as `load` takes it, or what `load_streamed` returned (which sets `device` and `revision`).
    Options are those of `observe`, but for `taylor`, as gradients need the whole model at once, and `queries`, as
    heads are kept whole here. With `gram=True`
    the matrices of all layers are held; `gram="by_layer"` leaves them to `stream_prune`.

    `savepoint`: a folder of this work alone. After every layer what is needed to resume is written there; after an
    interruption the same call resumes from it, and at the end it is removed. Not with several processes, of which
    otherwise (as with `observe`) each takes its share of the batches; every one of them reads all layers.

    Raises what `observe` and `load_streamed` raise, and `NotEnoughMemory` where the hidden states would not fit.
    """
    loaded = streamed(source, device, revision)
    options = checked(loaded, calibration, gram=gram, samples=samples, top_k=top_k, batch_size=batch_size)
    loaded.check_hidden(calibration.input_ids.numel())
    batches = list(share(calibration.batches(batch_size=batch_size, max_tokens=most_tokens(loaded))))
    pass_ = _Pass(loaded, calibration, batches, options, progress)
    if savepoint is None:
        records = pass_.run()
    else:
        if rank_and_count()[1] > 1:
            raise InvalidOption("A savepoint is of one process, and there are several. Leave it out.")
        identity = {
            "work": "observe",
            "model": loaded.fingerprint,
            "calibration": calibration.fingerprint,
            "computed_in": str(loaded.dtype),
            "batch_size": batch_size,
            "records": list(_VALUES),
            "wanted": [list(options.gram_sites), options.num_samples, options.top_k],
        }
        with closing(LayerLog(Path(savepoint).expanduser().resolve(), identity)) as log:
            records = pass_.run(log)
            log.remove()
        with suppress(OSError):  # the folder may hold files of others
            log.folder.rmdir()
    return gathered_statistics(loaded, calibration, records, gram=gram, samples=samples)


class _Pass:
    """The batches before one layer, and the progress."""

    def __init__(
        self,
        loaded: StreamedModel,
        calibration: CalibrationSet,
        batches: Sequence[Batch],
        options: RecordOptions,
        progress: Progress,
    ):
        self.loaded = loaded
        self.options = options
        self.total = calibration.num_tokens
        self.progress = progress
        self.processes = rank_and_count()[1]
        self.tokens = [RealTokens.of(batch, loaded.device) for batch in batches]
        with torch.no_grad(), loaded.embeddings_loaded(calibration.input_ids):
            self.streams = [stream(loaded, batch) for batch in batches]

    def run(self, log: LayerLog | None = None) -> list[LayerRecord]:
        records = []
        if log is not None:
            records = [_read(_file(log, index)) for index in range(log.layers)]
            for number, hidden in log.tensors.items():
                self.streams[int(number)].hidden = hidden.to(self.loaded.device)
        self.watch = Repeating(self.progress, self.total, "tokens", self._done(len(records), 0))
        for index in range(len(records), self.loaded.spec.num_hidden_layers):
            records.append(self._layer(index))
            if log is not None:
                _write(records[-1], _file(log, index))
                log.finish(index + 1, {str(number): each.hidden for number, each in enumerate(self.streams)})
        self.watch(self.total, self.total, "tokens")
        return records

    @torch.no_grad()
    def _layer(self, index: int) -> LayerRecord:
        """Run all batches through one layer."""
        recorder = LayerRecorder(self.loaded.spec, index, self.options, self.loaded.device)
        done = 0
        self._report(index, done)
        module = self.loaded.decoder_layers[index]
        inputs, calls = recorder.functions(module, self._current), recorder.call_functions(module, self._current)
        with self.loaded.layer(index, self.watch.check) as layer, on_inputs(inputs), on_calls(calls):
            for each, tokens in zip(self.streams, self.tokens, strict=True):
                self.current = tokens
                each.hidden = each.run(layer, index)
                self._report(index, done)
                done += sum(tokens.lengths) * self.processes
        recorder.combine()
        recorder.check_finite(self.loaded.dtype)
        return recorder.result()

    def _current(self) -> RealTokens:
        return self.current

    def _report(self, index: int, tokens: int) -> None:
        self.watch(self._done(index, tokens), self.total, "tokens")

    def _done(self, index: int, tokens: int) -> int:
        """Tokens done: a token counts once it has passed all layers, and in part at each of them."""
        return (index * self.total + min(tokens, self.total)) // self.loaded.spec.num_hidden_layers


def _file(log: LayerLog, index: int) -> Path:
    return log.folder / f"{NOTES}layer-{index}.safetensors"


def _write(record: LayerRecord, file: Path) -> None:
    tensors = {
        f"{name}.{field}": tensor
        for name, value in vars(record).items()
        if value is not None
        for field, tensor in vars(value).items()
        if tensor is not None
    }
    try:
        save_file(tensors, file)
    except (OSError, SafetensorError) as error:
        raise SaveRefused(f"{file} could not be written ({error}). Free some space and start again.") from error


def _read(file: Path) -> LayerRecord:
    with safe_open(file, framework="pt") as tensors:
        held = {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # noqa: SIM118
    values: dict[str, Any] = {}
    for name, kind in _VALUES.items():
        found = {field.name: held.get(f"{name}.{field.name}") for field in fields(kind)}
        values[name] = kind(**found) if any(tensor is not None for tensor in found.values()) else None
    return LayerRecord(**values)
