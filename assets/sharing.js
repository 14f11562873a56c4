// Runs inside the page's #settings-link: shows the settings as a whole address of this page, and copies it.
// `element`, `props` and `watch` are gradio's.

const field = () => element.querySelector("input");
const show = () => {
  const query = props.value || "";
  if (field()) field().value = query ? new URL(query, location.origin + location.pathname).href : "";
};
show();
watch("value", show);
element.addEventListener("click", async (event) => {
  if (!event.target.closest("button") || !field().value) return;
  field().select();
  const copied = navigator.clipboard
    ? await navigator.clipboard.writeText(field().value).then(() => true, () => false)
    : document.execCommand("copy");
  event.target.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => { event.target.textContent = "Copy"; }, 2000);
});
