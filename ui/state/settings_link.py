"""A link that restores the settings as a query string: model, texts, metric, ratios, locks, repair, measuring, goal.

The visitor's own text is not in it, nor are results; everything else is as it stood.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from urllib.parse import urlencode

import transact as ta
from transact.models.loaded_model import DTYPES
from ui.errors import WrongInput
from ui.server import limits
from ui.state import budgets
from ui.state.choice import Budget
from ui.state.options import DATASET, PASTE, UPLOAD, Options
from ui.state.session import Choice, ModelKey, Sampling, Session, Settings
from ui.text_sources import text_source

_LOCKS = tuple(field.name for field in fields(ta.Locks))
_OPTIONS = {
    "repair": "repair", "search": "search", "measure_on": "measure", "size": "amount", "smaller_by": "smaller",
    "minutes": "minutes", "differ": "differ",
}  # fmt: skip
"""Fields of `Options` by the names that a link has for them."""
_MAX_LOCKS = 1500
"""Locked units that an address bar can still carry."""


def query(session: Session) -> str:
    """The settings of a session as "?…"; empty before anything is scored."""
    if session.scored is None:
        return ""
    key, choice, sampling = session.key, session.choice, session.scored.sampling
    values = {"model": key.source}
    if key.revision:
        values["revision"] = key.revision
    if key.dtype != "auto":
        values["dtype"] = key.dtype
    if session.scored.text.origin == "sample":
        values["text"] = session.scored.text.name
    values |= {
        "samples": sampling.num_samples,
        "length": sampling.seq_len,
        "seed": sampling.seed,
        **({"gradients": 1} if sampling.taylor else {}),
        **({"heldout": f"{sampling.held_out:g}"} if sampling.held_out else {}),
        "metric": choice.metric,
        "attention": f"{choice.attention:g}",
        "mlp": f"{choice.mlp:g}",
    }
    if choice.allocation != Choice.allocation:
        values["allocation"] = choice.allocation
    if choice.granularity != Choice.granularity:
        values["granularity"] = choice.granularity
    if choice.budget is not None:
        values["limit"] = f"{choice.budget.kind}:{choice.budget.share:g}"
    if choice.by_hand:
        values["groups"] = ",".join(map(str, choice.keep_head_groups))
        values["channels"] = ",".join(map(str, choice.keep_channels))
    for name in _LOCKS:
        units = sorted(getattr(choice.locks, name))
        if units and len(units) <= _MAX_LOCKS:
            values[name] = ",".join(f"{layer}.{index}" for layer, index in units)
    values |= _of_options(session.options)
    return "?" + urlencode(values, safe=":,/")


def _of_options(options: Options) -> dict[str, str]:
    """What is not as a page opens with."""
    standard = Options()
    if options.measure_on in (PASTE, UPLOAD, DATASET):  # texts that no link can carry
        options = replace(options, measure_on=standard.measure_on)
    changed = {name: getattr(options, field) for field, name in _OPTIONS.items()
               if getattr(options, field) != getattr(standard, field)}  # fmt: skip
    return {name: f"{value:g}" if isinstance(value, float | bool) else value for name, value in changed.items()}


def settings(params: Mapping[str, str]) -> Settings | None:
    """What a link holds; None where there is none. Raises `WrongInput` for one that was damaged."""
    if "model" not in params:
        return None
    text = params.get("text")
    if text is not None:
        _one_of("text", text, text_source.SAMPLES)
    choice = _choice(params)
    key, sampling = _key(params), _sampling(params, choice.metric)
    return Settings(key, text, sampling, replace(choice, **_shares(params)), _options(params))


def _options(params: Mapping[str, str]) -> Options:
    values = {field: params.get(name, getattr(Options(), field)) for field, name in _OPTIONS.items()}
    kinds = {field: type(getattr(Options(), field)) for field in _OPTIONS}
    read = {
        field: value if kinds[field] is str else kinds[field](_read(_OPTIONS[field], value, float))
        for field, value in values.items()
    }
    try:
        return Options(**read).checked()
    except WrongInput as error:
        raise WrongInput(f"The link holds what cannot be. {error}") from None


def _choice(params: Mapping[str, str]) -> Choice:
    """All but the two shares."""
    standard = Choice()
    return Choice(
        metric=_one_of("metric", params.get("metric", standard.metric), ta.METRICS),
        allocation=_one_of("allocation", params.get("allocation", standard.allocation), ta.ALLOCATIONS),
        granularity=_one_of("granularity", params.get("granularity", standard.granularity), ta.GRANULARITIES),
        budget=_budget(params["limit"]) if "limit" in params else None,
        locks=ta.Locks(**{name: _units(name, params[name]) for name in _LOCKS if name in params}),
        **_counts_by_hand(params),
    )


def _key(params: Mapping[str, str]) -> ModelKey:
    dtype = _one_of("dtype", params.get("dtype", "auto"), ("auto", *DTYPES))
    revision = limits.name("The link's “revision”", params.get("revision", "")) or None
    return ModelKey(limits.name("The link's “model”", params["model"]), revision, dtype)


def _sampling(params: Mapping[str, str], metric: str) -> Sampling:
    standard = Sampling()
    num_samples = _whole("num_samples", "samples", params.get("samples", standard.num_samples))
    seq_len = _whole("seq_len", "length", params.get("length", standard.seq_len))
    seed = _whole("seed", "seed", params.get("seed", standard.seed))
    limits.tokens(num_samples, seq_len)
    taylor = "gradients" in params or ta.METRICS[metric].needs_gradients
    held_out = limits.share_held_out(100 * _read("heldout", params.get("heldout", standard.held_out), float))
    return Sampling(num_samples, seq_len, seed, taylor=taylor, held_out=held_out)


def _budget(text: str) -> Budget:
    kind, _, share = text.partition(":")
    if kind not in budgets.BUDGETS:
        raise _damaged("limit", text)
    return Budget(kind, limits.share_left(_read("limit", share, float)))


def _counts_by_hand(params: Mapping[str, str]) -> dict[str, tuple[int, ...] | None]:
    """What each layer keeps, where that was set by hand."""
    groups, channels = (
        tuple(_whole("units", name, count) for count in params[name].split(",")) if name in params else None
        for name in ("groups", "channels")
    )
    if (groups is None) != (channels is None):
        raise _damaged("groups and channels", "one without the other")
    return {"keep_head_groups": groups, "keep_channels": channels}


def _shares(params: Mapping[str, str]) -> dict[str, float]:
    standard = Choice()
    return {
        "attention": limits.share_removed(
            "attention", _read("attention", params.get("attention", standard.attention), float)
        ),
        "mlp": limits.share_removed("MLP", _read("mlp", params.get("mlp", standard.mlp), float)),
    }


def _units(name: str, text: str) -> frozenset[tuple[int, int]]:
    return frozenset(_read(name, unit, _unit) for unit in text.split(","))


def _unit(text: str) -> tuple[int, int]:
    layer, index = text.split(".")
    return _whole("index", "layer of a lock", layer), _whole("index", "locked unit", index)


def _whole(kind: str, name: str, value) -> int:
    """A whole number in the range of its kind, a key of `limits.RANGES`."""
    return limits.counted(kind, f"The link's “{name}”", _read(name, value, int))


def _read(name: str, value, kind):
    try:
        return kind(value)
    except ValueError:
        raise _damaged(name, value) from None


def _one_of(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise _damaged(name, value)
    return value


def _damaged(name: str, value) -> WrongInput:
    return WrongInput(f"The link's “{name}” is “{str(value)[:80]}”, which nothing here has; copy the link again.")
