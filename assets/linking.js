// Runs inside the page's #map-link, between the figures and Python: clicks and keys go in; what lies over the maps
// comes out and is drawn without the map, which keeps a slider's move under 150 ms where drawing 32 x 512 cells
// again would take several times that. `watch`, `props` and `trigger` are gradio's.

const NAMES = {"heads-plot": "Map of attention heads", "channels-plot": "Map of MLP channels"};
const HELP = "Arrow keys move the selection; K keeps it, X removes it, L leaves it to the score.";
const KEYS = ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "k", "x", "l"];

const plotOf = (block) => block.querySelector(".js-plotly-plot");
watch("value", () => {
  for (const [id, overlay] of Object.entries(JSON.parse(props.value || "{}"))) {
    const block = document.getElementById(id), plot = block && plotOf(block);
    if (!plot || !plot.data || plot.data.length <= overlay.length) continue;
    const differs = ([x, y], index) => String([plot.data[index + 1].x, plot.data[index + 1].y]) !== String([x, y]);
    const traces = overlay.map((points, index) => differs(points, index) ? index : -1).filter((index) => index >= 0);
    if (!traces.length) continue;
    const moved = {x: traces.map((index) => overlay[index][0]), y: traces.map((index) => overlay[index][1])};
    window.Plotly.restyle(plot, moved, traces.map((index) => index + 1));
  }
});
const attach = (block) => {
  const plot = plotOf(block);
  if (!plot || !plot.on || plot.dataset.watched) return;
  plot.dataset.watched = "yes";
  plot.on("plotly_click", ({points: [point]}) => {
    const cell = Array.isArray(point.pointNumber) ? point.pointNumber : [point.y, point.x];
    trigger("select", {plot: block.id, row: cell[0], column: cell[1], x: point.x, text: point.text});
  });
};
setInterval(() => {
  document.querySelectorAll(".linked").forEach(attach);
  // code that scrolls sideways must be reachable by keyboard
  document.querySelectorAll(".cm-scroller[tabindex='-1']").forEach((scroller) => { scroller.tabIndex = 0; });
}, 400);
document.addEventListener("keydown", (event) => {
  const within = event.target.closest?.(".keyed");
  const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  if (undo && !event.target.closest?.("input, textarea, .cm-editor")) {
    event.preventDefault();
    trigger("select", {plot: "", key: event.shiftKey ? "redo" : "undo"});
  } else if (within && KEYS.includes(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    trigger("select", {plot: within.id, key: event.key});
  }
});
const focusable = setInterval(() => {
  const maps = document.querySelectorAll(".keyed");
  if (!maps.length) return;
  clearInterval(focusable);
  for (const map of maps) {
    map.tabIndex = 0;
    map.setAttribute("role", "application");
    map.setAttribute("aria-label", `${NAMES[map.id]}. ${HELP}`);
  }
}, 200);
