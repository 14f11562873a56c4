// The tour, in the browser alone; runs inside the page's #guide-panel. `element` is gradio's.

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
  const {target, tab} = steps[at].dataset;
  if (tab) document.getElementById(`part-${tab}-button`)?.click();
  mark(target, at);
};

// A tab that has just been opened draws what it holds a moment later.
const mark = (target, step, tries = 20) => {
  if (card.hidden || at !== step) return;
  if (!document.getElementById(target) && tries) {
    setTimeout(() => mark(target, step, tries - 1), 100);
    return;
  }
  const node = place(target);
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
