"""All results so far: a row each, by columns that can be sorted and hidden, and the same as CSV."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from ui.format import labels, numbers
from ui.state.session import Result
from ui.views.result_table import speed

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What makes a spreadsheet take a cell for a formula, in the wide forms of East Asian keyboards too."""
_NOT_MEASURED = "not measured"
Value = float | int | str | None


@dataclass(frozen=True)
class Column:
    """One column: its title as in the menus, its name in the CSV, and how the page writes a value.

    `value`: what the column is sorted by and what the CSV holds, None where the result has none; `show`: how it
    stands in the page, from the result and its value. `hidden`: until the visitor ticks it.
    """

    title: str
    name: str
    value: Callable[[Result], Value]
    show: Callable[[Result, Value], str]
    hidden: bool = False

    def cell(self, result: Result) -> str:
        """As HTML; names that somebody else chose are escaped."""
        value = self.value(result)
        return "" if value is None else self.show(result, value)


def columns(results: tuple[Result, ...]) -> tuple[Column, ...]:
    """Those of every result, and one for each task that any of them was tested on."""
    kinds = dict.fromkeys(kind for result in results for kind, _, _ in result.probes)
    return (*_COLUMNS, *map(_task, kinds))


def history_table(results: tuple[Result, ...], first: int | None = None, second: int | None = None) -> str:
    """One row a result, newest first; `first` and `second` are the numbers of those that are compared."""
    if not results:
        return '<div class="empty">No results yet: every model that is cut becomes a row here.</div>'
    own = columns(results)
    ticks = "".join(
        f'<label><input type="checkbox" value="{escape(column.name)}"{"" if column.hidden else " checked"}> '
        f"{escape(column.title)}</label>"
        for column in own
    )
    heads = "".join(
        f'<th scope="col" data-column="{escape(column.name)}"{_hidden(column)}>'
        f'<button type="button">{escape(column.title)}</button></th>'
        for column in own
    )
    rows = "".join(
        f'<tr><td class="pick">{_pick(result, "first", first)}{_pick(result, "second", second)}</td>'
        f"{''.join(_cell(column, result) for column in own)}</tr>"
        for result in reversed(results)
    )
    return (
        f'<details class="columns"><summary>Columns</summary><div>{ticks}</div></details>'
        '<div class="scroll" tabindex="0" role="region" aria-label="All results"><table class="results sorted"><thead>'
        f'<tr><th scope="col" class="pick">1st 2nd</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def history_csv(results: tuple[Result, ...]) -> str:
    """All columns of the table, and what only a file has room for, with full precision; oldest first."""
    own = (*columns(results), *_IN_FILES)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([column.name for column in own])
    for result in results:
        writer.writerow([_in_file(column.value(result)) for column in own])
    return buffer.getvalue()


def _in_file(value: Value) -> Value:
    """A name that somebody else chose, as a spreadsheet shows it and does not compute it."""
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _cell(column: Column, result: Result) -> str:
    value = column.value(result)
    shown = column.cell(result)
    if column.name == "perplexity" and value is None:
        shown = _NOT_MEASURED
    key = "" if value is None else escape(str(value), quote=True)
    return f'<td data-key="{key}"{_hidden(column)}>{shown}</td>'


def _hidden(column: Column) -> str:
    return " hidden" if column.hidden else ""


def _pick(result: Result, which: str, chosen: int | None) -> str:
    checked = " checked" if result.number == chosen else ""
    return (
        f'<input type="radio" name="{which}" value="{result.number}"{checked} '
        f'aria-label="Result {result.number} as the {which}">'
    )


def _of_report(field: str) -> Callable[[Result], Value]:
    return lambda result: None if result.report is None else getattr(result.report, field)


def _achieved(name: str) -> Callable[[Result], Value]:
    return lambda result: result.plan.summary()["achieved"][name]


def _after(name: str) -> Callable[[Result], Value]:
    return lambda result: result.plan.summary()["after"][name]


def _times_dense(result: Result) -> Value:
    report = result.report
    if report is None or not report.reference_perplexity:
        return None
    return report.perplexity / report.reference_perplexity


def _perplexity(result: Result, value: Value) -> str:
    error = result.report.perplexity_standard_error
    return numbers.figure(value) + ("" if error is None else f" <small>± {numbers.figure(error)}</small>")


def _task(kind: str) -> Column:
    def right(result: Result) -> Value:
        return next((after for own, _, after in result.probes if own == kind), None)

    return Column(f"Task: {kind}", f"probe_{kind}", right, lambda _, share: numbers.percent(share), hidden=True)


def _named(_: Result, name: Value) -> str:
    return escape(str(name))


_COLUMNS = (
    Column("#", "number", lambda result: result.number, lambda _, number: str(number)),
    Column("Parameters", "parameters", lambda result: result.plan.spec.num_parameters,
           lambda _, count: numbers.count(count)),
    Column("Perplexity", "perplexity", _of_report("perplexity"), _perplexity),
    Column("Times the dense", "perplexity_times_dense", _times_dense,
           lambda result, _: numbers.factor(result.report.reference_perplexity, result.report.perplexity)),
    Column("Dense", "reference_perplexity", _of_report("reference_perplexity"),
           lambda _, value: numbers.figure(value), hidden=True),
    Column("Random", "random_perplexity", lambda result: result.floor, lambda _, value: numbers.figure(value)),
    Column("Same token", "top1_agreement", _of_report("top1_agreement"),
           lambda _, share: numbers.percent(share, 1)),
    Column("Heads removed", "attention_sparsity", _achieved("attention_sparsity"),
           lambda _, share: numbers.percent(share)),
    Column("Channels removed", "mlp_sparsity", _achieved("mlp_sparsity"), lambda _, share: numbers.percent(share)),
    Column("Measured by", "metric", lambda result: result.metric, lambda _, name: escape(labels.metric(name))),
    Column("Repair", "repair", lambda result: result.repaired, lambda _, name: escape(labels.repair(name))),
    Column("Scored on", "calibration", lambda result: result.scored.text.name, _named),
    Column("Measured on", "evaluation", lambda result: None if result.text is None else result.text.name, _named),
    Column("KV cache/token", "kv_bytes_per_token", _after("kv_bytes_per_token"),
           lambda _, size: numbers.size(size), hidden=True),
    Column("Reads, tokens/s", "prefill_tokens_per_second", _of_report("prefill_tokens_per_second"),
           lambda result, _: speed(result.report, "prefill"), hidden=True),
    Column("Writes, tokens/s", "decode_tokens_per_second", _of_report("decode_tokens_per_second"),
           lambda result, _: speed(result.report, "decode"), hidden=True),
    Column("Model", "model", lambda result: result.scored.key.source, _named, hidden=True),
)  # fmt: skip
_IN_FILES = tuple(
    Column("", name, _of_report(name), _named)
    for name in (
        "perplexity_standard_error", "kl_divergence", "reference_prefill_tokens_per_second",
        "reference_decode_tokens_per_second", "prefill_differs", "decode_differs",
    )
)  # fmt: skip
