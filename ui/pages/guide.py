"""The guide: a tour for a class or a visitor with two minutes, in a card beside the page it moves to.

It runs in the browser alone, so that it works while the model is busy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.guide_steps import STEPS, Step
from ui.session import Session
from ui.theme import ASSETS

DRAWINGS = ASSETS / "guide"
STYLE_SHEET = ASSETS / "guide.css"

SCRIPT = """
const card = element.querySelector("#guide");
const opener = element.querySelector("#guide-open");
const [back, next] = ["back", "next"].map((name) => card.querySelector(`[data-guide=${name}]`));
const steps = [...card.querySelectorAll("article")];
const wide = matchMedia("(min-width: 901px)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const last = steps.length - 1;
let at = 0;

const unmark = () => document.querySelectorAll(".guided").forEach((node) => node.classList.remove("guided"));

// The target, or what shows in its place (a closed accordion); not a whole part of the page, which has a heading.
const place = (id) => {
  const target = document.getElementById(id);
  let node = target;
  while (node && !node.getClientRects().length) node = node.parentElement;
  return node && (node === target || !node.querySelector("h2")) ? node : null;
};

const isPinned = (node) =>
  Boolean(node) && (getComputedStyle(node).position === "sticky" || isPinned(node.parentElement));

const overlap = (box, from, to) => Math.max(0, Math.min(box.right, to) - Math.max(box.left, from));

// Between the strip, which stays at the top, and the card, which lies over the bottom of a narrow page.
const bringIntoView = (node) => {
  const pinned = isPinned(node);
  const strip = document.getElementById("status");
  const above = pinned || !strip ? 4 : strip.offsetHeight + 16;
  const below = wide.matches ? 16 : card.offsetHeight + 16;
  const fits = node.offsetHeight <= innerHeight - above - below;
  node.style.scrollMargin = `${above}px 0 ${below}px`;
  node.scrollIntoView({
    block: pinned ? "nearest" : fits ? "center" : "start",
    inline: "nearest",
    behavior: calm.matches ? "instant" : "smooth",
  });
  node.style.scrollMargin = "";
};

const show = (index) => {
  at = Math.min(Math.max(index, 0), last);
  steps.forEach((step, number) => { step.hidden = number !== at; });
  back.setAttribute("aria-disabled", String(at === 0));
  next.textContent = at === last ? "Done" : "Next";
  card.querySelector(".guide-steps").scrollTop = 0;
  unmark();
  const node = place(steps[at].dataset.target);
  card.classList.remove("at-left");
  if (!node) return;
  node.classList.add("guided");
  const box = node.getBoundingClientRect();
  const width = card.offsetWidth + 32;
  const hidesLess = overlap(box, 0, width) < overlap(box, innerWidth - width, innerWidth);
  card.classList.toggle("at-left", wide.matches && hidesLess);
  bringIntoView(node);
};

const open = () => {
  card.hidden = false;
  opener.hidden = true;
  opener.setAttribute("aria-expanded", "true");
  show(at);
  card.focus({preventScroll: true});
};

const close = () => {
  unmark();
  card.hidden = true;
  opener.hidden = false;
  opener.setAttribute("aria-expanded", "false");
  opener.focus({preventScroll: true});
};

const finish = () => {
  at = 0;
  close();
};

const actions = {open, close, back: () => show(at - 1), next: () => (at === last ? finish() : show(at + 1))};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-guide]");
  if (button) actions[button.dataset.guide]();
});

const keys = {ArrowLeft: () => show(at - 1), ArrowRight: () => show(at + 1), Escape: close};
card.addEventListener("keydown", (event) => {
  if (!keys[event.key] || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  keys[event.key]();
});
"""
"""Steps are shown and hidden, never drawn anew, so that listeners and the reader's place in the page stay."""


@dataclass(frozen=True)
class GuidePanel:
    card: gr.HTML


def build(session: Session) -> GuidePanel:
    drawings = {step.drawing: _drawing(step.drawing) for step in STEPS if step.drawing}
    return GuidePanel(gr.HTML(card(STEPS, drawings), js_on_load=SCRIPT, apply_default_css=False, elem_id="guide-panel"))


def paint(panel: GuidePanel, session: Session) -> dict:
    """Nothing: the guide is the same for every session."""
    return {}


def card(steps: tuple[Step, ...], drawings: Mapping[str, str]) -> str:
    """The button that opens the guide, and the card with all steps, as HTML. `drawings`: SVG by name."""
    articles = "".join(_article(step, number, len(steps), drawings) for number, step in enumerate(steps, 1))
    return (
        '<button type="button" id="guide-open" data-guide="open" aria-expanded="false" aria-controls="guide">'
        "Guide</button>"
        '<section id="guide" role="dialog" aria-label="Guide" tabindex="-1" hidden>'
        f'<div class="guide-steps" aria-live="polite">{articles}</div>'
        '<footer><button type="button" data-guide="close">Close</button>'
        '<button type="button" data-guide="back">Back</button>'
        '<button type="button" data-guide="next">Next</button></footer></section>'
    )


def _article(step: Step, number: int, count: int, drawings: Mapping[str, str]) -> str:
    drawing = drawings[step.drawing] if step.drawing else ""
    return (
        f'<article data-target="{escape(step.target)}" hidden>'
        f'<p class="guide-count">Guide, step {number} of {count} '
        f'<span class="guide-bar"><i style="width: {100 * number // count}%"></i></span></p>'
        f"<h3>{escape(step.title)}</h3>{drawing}<p>{escape(step.words)}</p>"
        f'<p class="guide-try"><b>Try</b> {escape(step.try_this)}</p></article>'
    )


def _drawing(name: str) -> str:
    return (DRAWINGS / f"{name}.svg").read_text(encoding="utf-8")
