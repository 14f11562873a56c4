"""What the lessons ask, press and reveal: eight of them, from the parts of a layer to a good cut, as data.

Every number that a lesson reveals is a fact of the bundled model, measured beforehand by `benchmarks/lessons.py`; the
right answers follow from these facts. A label in “quotes” stands on the page in the same words.
"""

import json
from dataclasses import dataclass
from functools import cache

from ui.format import labels, numbers
from ui.format.theme import ASSETS
from ui.state.lesson_settings import Press
from ui.views import answers_table, lesson_figures

FILE = ASSETS / "guide" / "lessons.json"
_LOST = 0.9
"""A task is broken where fewer of the right answers are left than this share."""
_FACTORS = ("Hardly: × 1.1 at most", "Up to × 2", "Up to × 5", "More than × 5")
_FACTOR_LIMITS = (1.1, 2, 5)


@dataclass(frozen=True)
class Lesson:
    """One lesson. `target`: the `elem_id` it speaks of; `tab`: that which holds the target, where one does.

    `question` with its `options`, of which `right` is the index of the one that the facts bear out; `reveal` says so in
    words and `figure` (HTML) in numbers; `yours`: what the visitor does then. `drawing`: a file of `assets/guide`
    without its ending, shown beside the question. `press`: what is set on the page when the answer is revealed.
    """

    title: str
    words: str
    target: str
    question: str
    options: tuple[str, ...]
    right: int
    reveal: str
    figure: str
    yours: str
    press: Press
    tab: str = ""
    drawing: str | None = None


@cache
def facts() -> dict:
    """What `benchmarks/lessons.py` measured."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def protocol(known: dict) -> str:
    """How the numbers of all lessons were measured, in one sentence."""
    model = known["model"]
    return (
        "On the bundled model, by benchmarks/lessons.py: scored on 128 sequences of “mixed”, perplexity on "
        f"{model['tokens']:,} tokens of held-out “mixed” text in windows of up to 512, {model['items']} items a task."
    )


def _what_can_leave(known: dict) -> Lesson:
    parameters = known["model"]["parameters"]
    attention, mlp = parameters["attention"], parameters["mlp"]
    rest = parameters["all"] - attention - mlp
    sizes = {"Attention": attention, "MLP": mlp, "The rest": rest}
    largest = max(sizes, key=sizes.__getitem__)
    share = numbers.percent(sizes[largest] / parameters["all"])
    return Lesson(
        title="What can leave a layer",
        words="A model is a stack of layers. One stream of numbers runs through all of them (the residual stream); "
        "attention and MLP read it and add to it. Only what passes inside those two can go: heads here, channels "
        "there. The stream keeps its width.",
        target="maps",
        question="Where are most of the model's weights?",
        options=("In attention, the heads", "In the MLP, the channels", "In the rest: embeddings and norms"),
        right=list(sizes).index(largest),
        reveal=f"{largest}: {share} of {numbers.count(parameters['all'])} weights. So a model becomes small mostly by "
        "its channels, and heads are few and large.",
        figure=lesson_figures.bars([(name, size, numbers.count(size)) for name, size in sizes.items()]),
        yours="Nothing is hatched now. Move “Remove channels (MLP sparsity)”: what is hatched would go, and the strip "
        "below the maps says what that saves.",
        press=Press(),
        drawing="layer",
    )


def _one_head(known: dict) -> Lesson:
    dense, rows = known["heads"]["dense"], known["heads"]["without"]
    by_head = [(value, layer, head) for layer, row in enumerate(rows) for head, value in enumerate(row)]
    (least, *unmissed), (most, *missed) = min(by_head), max(by_head)
    some, any_of_them = most / dense >= 1.1, least / dense >= 1.1
    hardly = sum(value / dense < 1.01 for value, _, _ in by_head)
    return Lesson(
        title="Some heads carry the work",
        words="Each row of the left map is a layer, each cell an attention head. The text was read once (calibration), "
        "and what each head gave out was squared, summed and rooted: bright heads gave out much.",
        target="heads-plot",
        question=f"One of the {len(by_head)} heads is switched off. What becomes of the text?",
        options=("Whichever head goes, nothing is noticed", "It depends on the head", "Whichever goes, it falls apart"),
        right=2 if any_of_them else 1 if some else 0,
        reveal=f"Without head {missed[1]} of layer {missed[0]} perplexity, the surprise at new text, is "
        f"{numbers.factor(dense, most)}; without head {unmissed[1]} of layer {unmissed[0]} it is "
        f"{numbers.factor(dense, least)}, and {hardly} of the {len(by_head)} are missed as little. The first "
        "one is off now: read what is under “Live”.",
        figure=lesson_figures.grid(
            f"Perplexity without that head, × the whole model's, on {known['heads']['sequences']} sequences",
            [str(head) for head in range(len(rows[0]))],
            [(str(layer), [_factor_cell(dense, value) for value in row]) for layer, row in enumerate(rows)],
        ),
        yours="Click other heads in the map, and read what the model says without each. Is a bright head always one "
        "that is missed?",
        press=Press(head=tuple(missed)),
        tab="live",
        drawing="scoring",
    )


def _groups(known: dict) -> Lesson:
    by_heads, by_channels = known["savings"]
    saving = [by_heads["kv"] < 1, by_channels["kv"] < 1]
    return Lesson(
        title="Heads go in groups",
        words="Heads between two dashed lines share one key and one value (grouped-query attention), so they go "
        "together. The keys and values of all earlier words are kept while the model writes (the KV cache).",
        target="savings",
        question="Which slider makes that memory smaller?",
        options=("That of the heads", "That of the channels", "Both"),
        right=2 if all(saving) else saving.index(True),
        reveal=f"One group of four is hatched in every layer: the memory of every word is {_less(by_heads['kv'])}, "
        f"the weights only {_less(by_heads['parameters'])}. A quarter of the channels would be "
        f"{_less(by_channels['parameters'])} weights, and leave that memory as it is.",
        figure=lesson_figures.bars(
            [
                (f"{what}, {name}", row[field], numbers.percent(row[field]))
                for what, field in (("KV cache", "kv"), ("Weights", "parameters"))
                for name, row in (("heads", by_heads), ("channels", by_channels))
            ]
        ),
        yours="Look in the map for a bright head that goes with its group. Then move both sliders and watch "
        "“Memory/token” in the strip.",
        press=Press(attention=0.25),
        drawing="heads",
    )


def _half_the_channels(known: dict) -> Lesson:
    dense, points = known["model"]["perplexity"], known["channels"]
    half = next(point for point in points if point["removed"] == 0.5)
    last_good = max(point["removed"] for point in points if point["perplexity"] <= _FACTOR_LIMITS[0] * dense)
    return Lesson(
        title="Half of the channels",
        words="In the MLP every channel is one number a word, and the last weights mix all of them. A row of the right "
        "map shows a layer's channels, best first. Each can go alone, so cuts are fine.",
        target="channels-plot",
        question="The darker half of the channels goes. How much more does new text surprise the model (perplexity)?",
        options=_FACTORS,
        right=_factor_index(half["perplexity"] / dense),
        reveal=f"{numbers.factor(dense, half['perplexity'])}, as they are cut and nothing is repaired. Up to "
        f"{numbers.percent(last_good)} off it is × 1.1 at most. Half of them chosen at random: "
        f"{numbers.factor(dense, half['random'])}.",
        figure=lesson_figures.curves(
            "Perplexity over the share of channels removed, chosen by score and at random",
            "channels removed; perplexity upwards",
            [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %")],
            [(name, [(point["removed"], point[field]) for point in points])
             for name, field in (("by score", "perplexity"), ("at random", "random"))],
        ),
        yours="Drag the slider of the channels back until the sentence under “Live” reads well again. How far is that?",
        press=Press(mlp=0.5),
        tab="live",
        drawing="channels",
    )  # fmt: skip


def _tasks(known: dict) -> Lesson:
    points, items = known["channels"], known["model"]["items"]
    kinds = list(points[0]["tasks"])
    breaks = {kind: _breaking(points, kind) for kind in kinds}
    first, last = (pick(kinds, key=breaks.__getitem__) for pick in (min, max))
    share = breaks[first][0]
    point = next(point for point in points if point["removed"] == share)
    wrong = point["wrong"][first]
    asked = answers_table.question(first, wrong["prompt"])
    right, given = (answers_table.answer(first, wrong[name])[0] for name in ("right", "given"))
    return Lesson(
        title="Which task breaks first?",
        words="The model learnt five kinds of work: to tell stories, to add, to recall from a list, to close brackets, "
        "and to work out lines of Python. Channels go, the same share in every layer, more and more.",
        target="verdict-row",
        question="Which of them breaks first?",
        options=tuple(kind.capitalize() for kind in kinds),
        right=kinds.index(first),
        reveal=f"{first.capitalize()}, with {numbers.percent(share)} of the channels off; {last} last"
        f"{_until(breaks[last][0])}. Asked “{asked}”, right is “{right}”; the cut model says “{given}”.",
        figure=lesson_figures.grid(
            f"Right answers of {items}, by % of channels removed",
            [f"{100 * point['removed']:.0f}" for point in points],
            [(kind, [_task_cell(point, kind, items) for point in points]) for kind in kinds],
        ),
        yours="The slider stands where it breaks. Press “Try, cut nothing”: “Answer by answer” under “Results” then "
        "shows every question with both models' answers.",
        press=Press(mlp=share),
        drawing="masks",
    )


def _texts(known: dict) -> Lesson:
    texts = known["texts"]
    factors = {
        one: {other: texts["chosen"][one][other] / texts["dense"][other] for other in row}
        for one, row in texts["chosen"].items()
    }
    own, other = factors["addition"]["addition"], factors["addition"]["stories"]
    shared = texts["shared"]["addition"]["stories"]
    return Lesson(
        title="Another text, another pattern",
        words="No part is spare in itself, only for the text that was read. Now let that be sums and nothing else, "
        "choose the half of the channels that sums need least, and cut them.",
        target="score-button",
        question="What becomes of the stories that the model tells?",
        options=(
            "As good as before: × 1.1 at most",
            "Worse: up to × 2",
            "Much worse: up to × 5",
            "Lost: more than × 5",
        ),
        right=_factor_index(other),
        reveal=f"Perplexity on stories is {numbers.factor(1, other)}, on sums {numbers.factor(1, own)}. Of the "
        f"channels that sums keep, stories would keep {numbers.percent(shared)}; by chance it would be 50 %.",
        figure=lesson_figures.grid(
            "Perplexity, × the whole model's: half of the channels chosen on the row's text, measured on the column's",
            [kind if len(kind) < 6 else f"{kind[:4]}." for kind in factors],
            [(one, [_factor_cell(1, value) for value in row.values()]) for one, row in factors.items()],
        ),
        yours="“Addition of two numbers” is chosen in the form. Remember the brightest heads, press “Score”, and look "
        "which have moved.",
        press=Press(mlp=texts["removed"], text="addition"),
        drawing="texts",
    )


def _repair(known: dict) -> Lesson:
    dense, rows = known["model"]["perplexity"], {row["repair"]: row for row in known["repairs"]}
    plain, best, trained = (rows[name]["perplexity"] for name in ("none", "best", "training"))
    made_good = 1 - (best - dense) / (plain - dense)
    attention, mlp = rows["none"]["removed"]
    names = {name: labels.repair(name) for name in rows} | {"training": "Best, then training"}
    return Lesson(
        title="Repair, then train back",
        words="Channels resemble each other, so those that stay can take over. The weights that are left are refitted "
        "until each layer gives out nearly what it did (least squares): some seconds, no training.",
        target="cut-options",
        question=f"{numbers.percent(attention)} of the heads and {numbers.percent(mlp)} of the channels are off. How "
        "much of what perplexity lost does the best repair make good?",
        options=("Less than a third", "A third to two thirds", "More than two thirds"),
        right=0 if made_good < 1 / 3 else 2 if made_good > 2 / 3 else 1,
        reveal=f"{numbers.percent(made_good)} of it: from {numbers.factor(dense, plain)} to "
        f"{numbers.factor(dense, best)}. Training back on {numbers.count(rows['training']['tokens'])} tokens that the "
        f"whole model wrote leads to {numbers.factor(dense, trained)}.",
        figure=lesson_figures.bars(
            [
                (names[name], row["perplexity"] / dense, numbers.factor(dense, row["perplexity"]))
                for name, row in rows.items()
            ]
        ),
        yours="The sliders stand so. “Prune and measure” cuts and repairs, in about the time of this lesson; or choose "
        "“None, plain cut” first and compare.",
        press=Press(attention=attention, mlp=mlp),
        drawing="repair",
    )


def _good_cut(known: dict) -> Lesson:
    whole, points = known["model"]["parameters"]["all"], known["sizes"]
    point = points[-1]
    apart = point["random"] / point["best"]
    limits = (1.5, 5, 20)
    whole_perplexity = known["model"]["perplexity"]
    smallest = point["parameters"] / whole
    return Lesson(
        title="What makes a good cut",
        words="Every result is a point: how large the model is and how much new text surprises it. Good ones are those "
        "that no smaller one beats (the Pareto front). A choice at random is the floor that a score must beat.",
        target="pareto-plot",
        question=f"A model of {numbers.percent(smallest)} of the weights: how far apart are a choice at random and the "
        "best one, searched and repaired?",
        options=("× 1.5 at most", "Up to × 5", "Up to × 20", "More than × 20"),
        right=sum(apart > limit for limit in limits),
        reveal=f"{numbers.factor(point['best'], point['random'])}: perplexity {numbers.figure(point['random'])} at "
        f"random, {numbers.figure(point['score'])} by score, {numbers.figure(point['best'])} searched and repaired, "
        f"{numbers.figure(whole_perplexity)} whole. The size alone says nothing.",
        figure=lesson_figures.curves(
            "Perplexity over the share of weights removed, chosen at random, by score, and searched and repaired",
            "weights removed; perplexity upwards",
            [(0.0, "0"), (1 - smallest, numbers.percent(1 - smallest))],
            [(name, [(0.0, whole_perplexity), *((1 - point["parameters"] / whole, point[field]) for point in points)])
             for name, field in (("best", "best"), ("by score", "score"), ("at random", "random"))],
        ),
        yours="Each “Prune and measure” adds a point here. “Take away” holds the model, and the lines that do all this "
        "in Python. The page is yours.",
        press=Press(*point["removed"]),
        tab="results",
        drawing="pareto",
    )  # fmt: skip


def _breaking(points: list[dict], kind: str) -> tuple[float, float]:
    """Where a task breaks: the first share of channels, then how much of it is left there; (2, 1) where it never does.

    Compared with what the whole model solves.
    """
    whole = points[0]["tasks"][kind]
    left = [(point["removed"], point["tasks"][kind] / whole) for point in points]
    return next(((removed, share) for removed, share in left if share < _LOST), (2.0, 1.0))


def _until(removed: float) -> str:
    return ", and not within this range" if removed > 1 else f", at {numbers.percent(removed)}"


def _task_cell(point: dict, kind: str, items: int) -> tuple[str, float]:
    return str(point["tasks"][kind]), point["tasks"][kind] / items


def _factor_cell(dense: float, value: float) -> tuple[str, float]:
    """A factor in two or three digits, shaded from × 1 to × 3."""
    factor = value / dense
    shown = f"{factor:.2f}" if factor < 10 else f"{factor:,.0f}"
    return shown, max(0.0, min(1.0, (factor - 1) / 2))


def _factor_index(factor: float) -> int:
    """Which of four ranges that end at × 1.1, × 2 and × 5 it lies in."""
    return sum(factor > limit for limit in _FACTOR_LIMITS)


def _less(share: float) -> str:
    return f"{numbers.percent(1 - share)} less"


LESSONS = tuple(
    lesson(facts())
    for lesson in (
        _what_can_leave, _one_head, _groups, _half_the_channels, _tasks, _texts, _repair, _good_cut,
    )
)  # fmt: skip
PROTOCOL = protocol(facts())
