// The only script of ours on most pages. What came of a command is brought into view.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id === "said") event.target.scrollIntoView({ block: "nearest" });
});

// A browser on the machine of the cloud itself drops what it waits for whenever a VM's network is made or
// goes (ERR_NETWORK_CHANGED). What only reads is asked for again; what acts is answered before that.
document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.verb !== "get") return;
  setTimeout(() => htmx.trigger(event.detail.elt, "again"), 500);
});
