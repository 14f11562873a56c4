// Runs inside the page's #history-table: sorts its rows, hides columns, and says which two results are to be compared.
// The table comes anew with every result; what the visitor has sorted and hidden stays. `element`, `watch` and
// `trigger` are gradio's.

const hidden = new Map(), sort = {column: null, rising: true};
const headsOf = () => [...element.querySelectorAll("table.sorted th[data-column]")];

const show = () => {
  headsOf().forEach((head, index) => {
    const off = hidden.has(head.dataset.column) ? hidden.get(head.dataset.column) : head.hidden;
    element.querySelectorAll("table.sorted tr").forEach((row) => { row.cells[index + 1].hidden = off; });
    const tick = element.querySelector(`.columns input[value="${CSS.escape(head.dataset.column)}"]`);
    if (tick) tick.checked = !off;
    const sorted = sort.column === head.dataset.column;
    head.setAttribute("aria-sort", sorted ? (sort.rising ? "ascending" : "descending") : "none");
  });
};
const keyOf = (row, index) => row.cells[index + 1].dataset.key;
const compare = (one, other) => {
  if (one === "" || other === "") return one === other ? 0 : (one === "" ? 1 : -1) * (sort.rising ? 1 : -1);
  const numbers = [Number(one), Number(other)];
  return numbers.some(Number.isNaN) ? one.localeCompare(other) : numbers[0] - numbers[1];
};
const order = () => {
  const index = headsOf().findIndex((head) => head.dataset.column === sort.column);
  const body = element.querySelector("table.sorted tbody");
  if (index < 0 || !body) return;
  const rows = [...body.rows].sort((one, other) => compare(keyOf(one, index), keyOf(other, index)) * (sort.rising ? 1 : -1));
  body.append(...rows);
};
const apply = () => {
  show();
  order();
};
// gradio patches what stands there, attribute by attribute; a radio that was clicked no longer follows its attribute
watch("value", () => {
  element.querySelectorAll("input[type=radio]").forEach((box) => { box.checked = box.hasAttribute("checked"); });
  apply();
});
element.addEventListener("click", (event) => {
  const head = event.target.closest("th[data-column] button")?.parentElement;
  if (!head) return;
  sort.rising = sort.column === head.dataset.column ? !sort.rising : true;
  sort.column = head.dataset.column;
  apply();
});
element.addEventListener("change", (event) => {
  const box = event.target;
  if (box.type === "checkbox") {
    hidden.set(box.value, !box.checked);
    apply();
  } else if (box.type === "radio") {
    const chosen = (name) => Number(element.querySelector(`input[name=${name}]:checked`)?.value) || null;
    trigger("select", {first: chosen("first"), second: chosen("second")});
  }
});
apply();
