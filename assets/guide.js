// The lessons; runs inside the page's #guide-panel. Asking and revealing need no server; what a lesson sets on the page
// does. `element` and `trigger` are gradio's.

const card = element.querySelector("#guide");
const opener = element.querySelector("#guide-open");
const [back, next, large, link] = ["back", "next", "large", "link"].map(
  (name) => card.querySelector(`[data-guide=${name}]`));
const lessons = [...card.querySelectorAll("article")];
const wide = matchMedia("(min-width: 901px)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const last = lessons.length - 1;
const SETTLING = 8000;
let at = 0, pointedAt = 0; // which lesson, and when (ms) the page was last moved to what it speaks of

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

// What stays at the top: the bar, and for what comes after them also the savings.
const heightAbove = (node) => {
  const strip = document.getElementById("status"), savings = document.getElementById("cut");
  const follows = savings && savings.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING;
  return (strip?.offsetHeight || 0) + (follows && !savings.contains(node) ? savings.offsetHeight : 0) + 12;
};

// Between what stays at the top and, on a narrow page, the card at the bottom.
const bringIntoView = (node) => {
  const pinned = isPinned(node) && !node.closest("#rail");
  const above = pinned ? 4 : heightAbove(node);
  const below = wide.matches ? 16 : card.offsetHeight + 16;
  const fits = node.offsetHeight <= innerHeight - above - below;
  node.style.scrollMargin = `${above}px 0 ${below}px`;
  node.scrollIntoView({
    block: pinned || (fits && wide.matches) ? "nearest" : "start",
    inline: "nearest",
    behavior: calm.matches ? "instant" : "smooth",
  });
  node.style.scrollMargin = "";
};

// The page makes room for the card: beside the maps it stands between the bar and the rail, else at the bottom.
const makeRoom = () => {
  const bar = document.getElementById("status")?.offsetHeight || 44;
  const [beside, below] = card.hidden ? [false, false] : [wide.matches, !wide.matches];
  const room = {
    "--guide-top": `${bar + 6}px`,
    "--beside": beside ? `${bar + card.offsetHeight - 32}px` : "0px",
    "--below": below ? `${card.offsetHeight + 8}px` : "12px",
    "--rail-width": beside && card.classList.contains("large") ? "440px" : "290px",
  };
  for (const [name, value] of Object.entries(room)) document.documentElement.style.setProperty(name, value);
};
new ResizeObserver(makeRoom).observe(card);
// The lesson's own message makes the bar higher, which may then lie over what is spoken of; later ones move nothing.
const barResized = new ResizeObserver(() => {
  makeRoom();
  const node = document.querySelector(".guided");
  if (node && performance.now() - pointedAt < SETTLING) bringIntoView(node);
});
wide.addEventListener("change", makeRoom);

const address = (changed) => {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changed)) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  return url;
};

const remember = (lesson) => history.replaceState(
  history.state, "", address({lesson, large: lesson && card.classList.contains("large") ? 1 : null}));

const stage = (lesson, revealed) => {
  lesson.querySelector(".lesson-ask").hidden = revealed;
  lesson.querySelector(".lesson-reveal").hidden = !revealed;
};

const show = (index) => {
  // what has the focus may be hidden by this, and keys would then reach nothing
  if (document.activeElement?.closest("#guide article")) card.focus({preventScroll: true});
  at = Math.min(Math.max(index, 0), last);
  lessons.forEach((lesson, number) => { lesson.hidden = number !== at; });
  stage(lessons[at], false);
  back.setAttribute("aria-disabled", String(at === 0));
  next.textContent = at === last ? "Done" : "Next";
  card.scrollTop = 0;
  remember(at + 1);
  point();
};

const point = () => {
  unmark();
  const {target, tab} = lessons[at].dataset;
  if (tab) document.getElementById(`part-${tab}-button`)?.click();
  mark(target, at);
};

// A tab that has just been opened draws what it holds a moment later.
const mark = (target, lesson, tries = 20) => {
  if (card.hidden || at !== lesson) return;
  if (!document.getElementById(target) && tries) {
    setTimeout(() => mark(target, lesson, tries - 1), 100);
    return;
  }
  const node = place(target);
  card.classList.toggle("in-rail", Boolean(node?.closest("#rail")));
  makeRoom();
  if (!node) return;
  node.classList.add("guided");
  pointedAt = performance.now();
  bringIntoView(node);
};

const choose = (button) => {
  const lesson = lessons[at], options = [...lesson.querySelectorAll("[data-option]")];
  const right = options[Number(lesson.dataset.right)];
  const verdict = lesson.querySelector(".lesson-verdict");
  verdict.classList.toggle("good", button === right);
  verdict.textContent = button === right
    ? `✓ You said “${button.textContent}”, and so it is.`
    : `✗ You said “${button.textContent}”. It is: “${right.textContent}”.`;
  stage(lesson, true);
  lesson.querySelector(".lesson-reveal").focus({preventScroll: true});
  trigger("select", {lesson: at + 1});
  card.scrollTop = 0;
  point();
};

const setLarge = (on) => {
  card.classList.toggle("large", on);
  large.setAttribute("aria-pressed", String(on));
};

const open = () => {
  card.hidden = false;
  const bar = document.getElementById("status");
  if (bar) barResized.observe(bar);
  opener.hidden = true;
  opener.setAttribute("aria-expanded", "true");
  show(at);
  card.focus({preventScroll: true});
};

const close = () => {
  barResized.disconnect();
  unmark();
  card.hidden = true;
  makeRoom();
  opener.hidden = false;
  opener.setAttribute("aria-expanded", "false");
  remember(null);
  opener.focus({preventScroll: true});
};

const finish = () => {
  at = 0;
  close();
};

const copy = async () => {
  const copied = await navigator.clipboard?.writeText(location.href).then(() => true, () => false);
  link.textContent = copied ? "Copied" : "It is in the address bar";
  setTimeout(() => { link.textContent = "Copy link"; }, 2000);
};

const enlarge = () => {
  setLarge(!card.classList.contains("large"));
  remember(at + 1);
  point();
};

const actions = {
  open, close, large: enlarge, link: copy,
  back: () => show(at - 1), next: () => (at === last ? finish() : show(at + 1)),
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-guide], [data-option]");
  if (button?.dataset.option) choose(button);
  else if (button) actions[button.dataset.guide]();
});

const keys = {ArrowLeft: () => show(at - 1), ArrowRight: () => show(at + 1), Escape: close};
card.addEventListener("keydown", (event) => {
  if (!keys[event.key] || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  keys[event.key]();
});

// A link to a lesson opens it once the maps are drawn, when the page can be pressed.
const asked = new URLSearchParams(location.search), number = Number(asked.get("lesson"));
if (Number.isInteger(number) && number >= 1 && number <= lessons.length) {
  const drawn = () => document.querySelector("#channels-plot .heatmaplayer image");
  let tries = 100;
  const waiting = setInterval(() => {
    if (!drawn() && tries--) return;
    clearInterval(waiting);
    at = number - 1;
    setLarge(asked.has("large"));
    open();
  }, 100);
}
