"""What the guide says: ten steps from the parts of a layer to a pruned model, as data.

Written for the bundled model and true for any other: no step names a number or promises an outcome, it says where
to look. A label in “quotes” stands on the page in the same words.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step. `target`: the `elem_id` it speaks of; `tab`: that which holds the target, where one does; `drawing`: a
    file of `assets/guide` without its ending.
    """

    title: str
    words: str
    target: str
    drawing: str | None
    try_this: str
    tab: str = ""


STEPS = (
    Step(
        "What can leave a layer",
        "A model is a stack of layers. Through each runs one stream of numbers (the residual stream); attention and "
        "MLP read it and add to it. Only what passes inside those two (the transitional activations) is scored and "
        "cut; the stream keeps its width.",
        "model-card",
        "layer",
        "Read on the card how many heads and channels each layer has. They can go; the layers stay.",
    ),
    Step(
        "A text shows what is used",
        "A text runs through the model (calibration). In every channel its numbers are squared, added up over all "
        "tokens and rooted (the activation norm). What this text uses gets a high score (importance).",
        "calibration-source",
        "scoring",
        "Choose “Children's stories” here, then press “Score” further down. The maps are drawn anew; the model stays "
        "as it was.",
    ),
    Step(
        "Heads go in groups",
        "Each cell is an attention head, each row a layer; bright heads carry this text. Heads between two dashed "
        "lines share one key/value head (grouped-query attention), so they stay or go together. Hatched ones would go.",
        "heads-plot",
        "heads",
        "Click a head to look into its layer below. Does a group go although one of its heads is bright?",
    ),
    Step(
        "Channels go one by one",
        "Inside the MLP, gate times up gives one number a channel, and down mixes the channels back together (a gated "
        "MLP). A row shows a layer's channels, best first. Each can go alone, so this cut is finer.",
        "channels-plot",
        "channels",
        "Notice where a row turns dark: from there on, channels score low. Is it the same place in every layer?",
    ),
    Step(
        "Another text, another pattern",
        "Another text uses other parts. So no part is spare in itself, only for the text that was scored "
        "(redundancy depends on the task).",
        "score-button",
        "texts",
        "Remember the brightest heads. Choose “Addition of two numbers” above, press “Score” and look at the maps "
        "again: what has moved?",
    ),
    Step(
        "What a cut takes away",
        "A group that goes takes its rows out of q, k and v and its columns out of o (structured pruning). What is "
        "left is an ordinary layer with smaller matrices. A group also spares what every token leaves in memory "
        "(KV cache).",
        "attention-sparsity",
        "removing",
        "Move this slider, then the one for channels. Hatching and savings follow at once. Which of the two sliders "
        "lowers the memory per token?",
    ),
    Step(
        "First try, then cut",
        "Try feeds zeros through the hatched parts, measures, and puts everything back (masking). Prune makes a "
        "smaller model beside the full one (the dense model) and measures both.",
        "verdict-row",
        "masks",
        "Press “Try, cut nothing”, then “Prune and measure”. In the table below, watch which task breaks first: "
        "stories, addition or another?",
    ),
    Step(
        "Repair without training",
        "Channels often resemble each other, so those that stay can take over. The weights of o and down that are left "
        "are refitted until each output is as close as it can be to what it was (least squares). The best repair goes "
        "through the layers one by one, searches for what it can do without, and then corrects the whole.",
        "repair-select",
        "repair",
        "Choose “None, plain cut”, leave the sliders and press “Prune and measure” again. How much of the loss did the "
        "repair make good?",
    ),
    Step(
        "What makes a good cut",
        "Every result is a point: how large the model is (parameters) and how much new text surprises it "
        "(perplexity). Good ones are those that no smaller model beats (the Pareto front). A choice at random is the "
        "floor that a score should beat.",
        "pareto-plot",
        "pareto",
        "Choose “Random (the floor)” under “Measured by”, leave the sliders and prune again. How "
        "far apart are the two points?",
        "results",
    ),
    Step(
        "Take it with you",
        "The pruned model is an ordinary checkpoint that transformers loads without this project. These lines do in "
        "Python what you did on the page, so that others can check it.",
        "code-view",
        None,
        "Copy the lines, or press “Download the pruned model (.zip)”. Then close the guide, score on another text and "
        "cut as much again: does the same task break first?",
        "take",
    ),
)
