"use strict";
// The only script of ours on most pages: times as the reader is used to, copying, the panel with what
// came of a command. Pages that depend on a command fetch their parts anew by themselves (HX-Trigger).
{
const on = (name, act) => document.addEventListener(name, act);
const said = document.getElementById("said");
let cause; // what the panel's content came of; the focus goes back there

function tell(name) {
  said?.replaceChildren(document.getElementById(name).content.cloneNode(true));
}

function shut() {
  const had = said.contains(document.activeElement) || document.activeElement.id === "close";
  said.replaceChildren();
  if (!had) return;
  const back = cause?.isConnected ? cause : document.getElementById(cause?.id);
  (back ?? document.getElementById("main")).focus();
}

function finish(root) {
  for (const time of root.querySelectorAll("time:not([title])")) {
    time.title = time.textContent;
    const style = { dateStyle: "medium", timeStyle: "short" };
    time.textContent = new Date(time.dateTime).toLocaleString(undefined, style);
  }
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

on("click", async ({ target }) => {
  const button = target.closest?.("#close, [data-copy]");
  if (!button) return;
  if (button.id === "close") return shut();
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } catch {
    button.textContent = "not allowed";
  }
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});
on("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && said?.firstChild) shut();
});

on("htmx:beforeRequest", ({ detail }) => {
  if (detail.target === said && !said.contains(detail.elt)) cause = document.activeElement;
});
on("htmx:afterSettle", ({ target }) => finish(target.parentElement ?? document));
// What is no answer of ours (the edge's, while control is away) is not put into the page. What only reads
// is asked for again, ever more slowly: a browser on the cloud's own machine drops what it waits for whenever
// a VM's network is made or goes (ERR_NETWORK_CHANGED).
const waits = new WeakMap();
function lost({ detail: { requestConfig: { elt, verb } } }) {
  if (verb === "get") {
    waits.set(elt, Math.min(2 * (waits.get(elt) ?? 250), 8000));
    setTimeout(() => htmx.trigger(elt, "again"), waits.get(elt));
  } else tell("lost");
}
on("htmx:afterOnLoad", ({ detail: { elt, xhr } }) => {
  if (xhr.status < 400) waits.delete(elt);
});
on("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail;
  if (xhr.status < 400 || xhr.getResponseHeader("HX-Reselect")) return;
  event.detail.shouldSwap = false;
  lost(event);
});
on("htmx:sendError", lost);

// A new connection knows nothing of what the page shows by now: it asks for all of it.
on("htmx:sseError", ({ target }) => {
  target.setAttribute("sse-connect", target.getAttribute("sse-connect").replace(/seen=.*/, ""));
});
on("htmx:sseClose", ({ detail }) => {
  if (detail.type === "message") tell("out");
});
finish(document);
}
