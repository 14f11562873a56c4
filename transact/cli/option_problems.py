"""Which options go together: for each command a function that says what is wrong with its arguments, if anything."""

from argparse import Namespace

from transact.cli.options import ALLOCATION, PLANNING, SEARCH

_ROUNDING = ("--multiple-of", "--groups-multiple-of")
_PLAN_OPTIONS = tuple(option.flag for option in PLANNING.options)


def no_problem(arguments: Namespace) -> None:
    """Every combination of options is valid."""


def reference_problem(arguments: Namespace) -> str | None:
    """What is wrong with the reference: a revision alone names no model."""
    if arguments.reference is None and arguments.reference_revision is not None:
        return "--reference-revision belongs to --reference; give that too"
    return None


def target_problem(arguments: Namespace) -> str | None:
    """What is wrong with how the target was given, if anything."""
    shares = (arguments.attention_sparsity, arguments.mlp_sparsity)
    kept = (arguments.keep_head_groups, arguments.keep_channels)
    inside = any(width is not None for width in (arguments.keep_query_key_dim, arguments.keep_value_dim))
    beside = inside or arguments.keep_layers is not None
    ways = [way for way in (shares, (arguments.parameters,), kept) if any(value is not None for value in way)]
    if inside and arguments.parameters is not None:
        return "--parameters knows whole heads alone; leave it out, or --keep-query-key-dim and --keep-value-dim"
    if arguments.keep_layers is not None and arguments.parameters is not None:
        return "--parameters counts on all layers; leave it out, or --keep-layers"
    if len(ways) > 1 or not (ways or beside):
        return (
            f"{'several ways' if ways else 'nothing'} given to say how much to remove; give --attention-sparsity "
            "and/or --mlp-sparsity, or --parameters, or --keep-head-groups with --keep-channels"
        )
    if kept in ways and None in kept:
        return "--keep-head-groups and --keep-channels are given together"
    if arguments.granularity is not None and arguments.attention_sparsity is None:
        return "--granularity belongs to --attention-sparsity; give that too"
    if arguments.keep_heads_per_group is not None and kept not in ways:
        return "--keep-heads-per-group belongs to --keep-head-groups with --keep-channels; give those too"
    rounded = [flag for flag in _ROUNDING if vars(arguments)[flag.removeprefix("--").replace("-", "_")] is not None]
    if rounded and kept in ways:
        return f"{' and '.join(rounded)} rounds shares and totals; counts that are given stay as they are, leave it out"
    if rounded and (vars(arguments).get("allocation") or ALLOCATION) != ALLOCATION:
        return f"{' and '.join(rounded)} goes with --allocation {ALLOCATION}, which keeps the same number in each layer"
    if arguments.metric == SEARCH and vars(arguments).get("allocation") is not None:
        return f"--metric {SEARCH} does not know --allocation; leave it out or choose another metric"
    if vars(arguments).get("widths") == "free" and vars(arguments).get("allocation") is not None:
        return "--widths free shares the channels out itself; leave --allocation out"
    return None


def scores_problem(arguments: Namespace) -> str | None:
    """What is wrong with a file of scores or the calibration text that stands for one, if anything."""
    if arguments.scores is None and arguments.calibration is None:
        return "give --calibration to score on, or --scores"
    if arguments.scores is not None and arguments.widths == "free":
        return "--widths free runs the model; give --calibration instead of --scores"
    beside = [flag for flag in ("--calibration", "--metric") if vars(arguments)[flag[2:]] is not None]
    if arguments.scores is not None and beside:
        return f"--scores has decided already what {', '.join(beside)} would; give one or the other"
    return target_problem(arguments)


def plan_problem(arguments: Namespace) -> str | None:
    """What is wrong with a plan file or the options that stand for one, if anything."""
    if arguments.plan is None:
        if arguments.calibration is None:
            return "give --plan, or --calibration and how much to remove"
        return target_problem(arguments)
    beside = [flag for flag in _PLAN_OPTIONS if vars(arguments)[flag.removeprefix("--").replace("-", "_")] is not None]
    if beside:
        return f"--plan has decided already what {', '.join(beside)} would; give one or the other"
    if arguments.compensation != "none" and arguments.calibration is None:
        return f"--compensation {arguments.compensation} works from the calibration text; give --calibration"
    return None


def result_problem(arguments: Namespace) -> str | None:
    """There must be an output or a measurement, on a text that is known."""
    if arguments.output is None and arguments.evaluation is None and arguments.held_out is None:
        return "give --output to save the result, --evaluation or --held-out to measure it, or both"
    return held_out_problem(arguments)


def held_out_problem(arguments: Namespace) -> str | None:
    """What is wrong with the share that is held out of the calibration text."""
    if arguments.held_out is None:
        return None
    if not 0 < arguments.held_out < 1:
        return f"--held-out is {arguments.held_out:g}; give the share that is held out, above 0 and below 1"
    if arguments.calibration is None:
        return "--held-out is a share of the calibration text; give --calibration"
    return None


def compression_problem(arguments: Namespace) -> str | None:
    """As `result_problem`; a size and a time that are none are refused before anything is loaded."""
    if (arguments.size is None) == (arguments.repeat is None):
        return "give --size, or --repeat to do again what an earlier run did"
    if arguments.size is not None and not 0 < arguments.size < 1:
        return f"--size is {arguments.size:g}; give the share of the parameters that stays, above 0 and below 1"
    if not 0 < arguments.minutes < float("inf"):
        return f"--minutes is {arguments.minutes:g}; give a number above 0"
    return result_problem(arguments)


def prune_problem(arguments: Namespace) -> str | None:
    """As `result_problem` and `plan_problem`."""
    return result_problem(arguments) or plan_problem(arguments)


def export_problem(arguments: Namespace) -> str | None:
    """As `plan_problem`; only weights can be repaired, and only GGUF has file types."""
    if arguments.file_type is not None and arguments.kind != "gguf":
        return f"--file-type {arguments.file_type} belongs to --kind gguf; leave it out, or export that"
    if arguments.kind == "plan" and arguments.compensation != "none":
        return "a plan holds no weights that --compensation could repair; leave it out, or export a checkpoint or GGUF"
    return plan_problem(arguments)
