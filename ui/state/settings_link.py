"""A link that restores the settings: model, calibration text, metric, ratios and locks as a query string.

The visitor's own text is not in it, nor are results; everything else is as it stood.
"""

from collections.abc import Mapping
from dataclasses import fields
from urllib.parse import urlencode

import transact as ta
from transact.models.loaded_model import DTYPES
from ui.errors import WrongInput
from ui.server import limits
from ui.state import budgets
from ui.state.session import Budget, Choice, ModelKey, Sampling, Session, Settings
from ui.text_sources import text_source

_LOCKS = tuple(field.name for field in fields(ta.Locks))
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
    return "?" + urlencode(values, safe=":,/")


def settings(params: Mapping[str, str]) -> Settings | None:
    """What a link holds; None where there is none. Raises `WrongInput` for one that was damaged."""
    if "model" not in params:
        return None
    standard, sampling = Choice(), Sampling()
    text = params.get("text")
    if text is not None and text not in text_source.SAMPLES:
        raise _damaged("text", text)
    metric = params.get("metric", standard.metric)
    if metric not in ta.METRICS:
        raise _damaged("metric", metric)
    allocation = params.get("allocation", standard.allocation)
    if allocation not in ta.ALLOCATIONS:
        raise _damaged("allocation", allocation)
    granularity = params.get("granularity", standard.granularity)
    if granularity not in ta.GRANULARITIES:
        raise _damaged("granularity", granularity)
    budget = None
    if "limit" in params:
        kind, _, share = params["limit"].partition(":")
        if kind not in budgets.BUDGETS:
            raise _damaged("limit", params["limit"])
        budget = Budget(kind, limits.share_left(_read("limit", share, float)))
    locks = {
        name: frozenset(_read(name, unit, _unit) for unit in params[name].split(","))
        for name in _LOCKS
        if name in params
    }
    by_hand = [
        tuple(_whole("units", name, count) for count in params[name].split(",")) if name in params else None
        for name in ("groups", "channels")
    ]
    if (by_hand[0] is None) != (by_hand[1] is None):
        raise _damaged("groups and channels", "one without the other")
    dtype = params.get("dtype", "auto")
    if dtype not in ("auto", *DTYPES):
        raise _damaged("dtype", dtype)
    revision = limits.name("The link's “revision”", params.get("revision", "")) or None
    num_samples, seq_len, seed = (
        _whole(kind, name, params.get(name, standing))
        for kind, name, standing in (
            ("num_samples", "samples", sampling.num_samples),
            ("seq_len", "length", sampling.seq_len),
            ("seed", "seed", sampling.seed),
        )
    )
    limits.tokens(num_samples, seq_len)
    return Settings(
        key=ModelKey(limits.name("The link's “model”", params["model"]), revision, dtype),
        text=text,
        sampling=Sampling(
            num_samples, seq_len, seed, taylor="gradients" in params or ta.METRICS[metric].needs_gradients
        ),
        choice=Choice(
            metric=metric,
            attention=limits.share_removed(
                "attention", _read("attention", params.get("attention", standard.attention), float)
            ),
            mlp=limits.share_removed("MLP", _read("mlp", params.get("mlp", standard.mlp), float)),
            allocation=allocation,
            granularity=granularity,
            budget=budget,
            keep_head_groups=by_hand[0],
            keep_channels=by_hand[1],
            locks=ta.Locks(**locks),
        ),
    )


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


def _damaged(name: str, value) -> WrongInput:
    return WrongInput(f"The link's “{name}” is “{str(value)[:80]}”, which nothing here has; copy the link again.")
