// The only script of ours on most pages: what came of a command is brought into view, a page whose
// parts depend on it fetches them anew (the header HX-Trigger says so), and a form that did its work
// is emptied.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id === "said") event.target.scrollIntoView({ block: "nearest" });
});
