// What pages do beyond HTML: they say whether they are live. Everything works without it.
"use strict";

addEventListener("htmx:sse:after:connection", () => said("Live", false));
addEventListener("htmx:sse:error", () => said("Lost the connection; trying again", true));
addEventListener("htmx:sse:close", (event) => {
  if (event.detail?.reason === "message") said("Ended", false);
});

function said(words, lost) {
  for (const box of document.querySelectorAll("[data-live]")) {
    box.classList.toggle("lost", lost);
    const word = box.querySelector("[data-live-word]");
    if (word && word.textContent !== words) word.textContent = words;
  }
}

// One menu of an action is open at a time, and Escape closes it.
addEventListener("toggle", (event) => {
  if (!event.target.matches?.("details.ask") || !event.target.open) return;
  for (const other of document.querySelectorAll("details.ask[open]")) if (other !== event.target) other.open = false;
}, true);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details.ask[open]");
  if (open) { open.open = false; open.querySelector("summary").focus(); }
});

// Buttons that copy what stands beside them.
addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-copies]");
  if (!button) return;
  navigator.clipboard?.writeText(document.getElementById(button.dataset.copies).textContent).then(() => {
    button.textContent = "Copied";
  });
});

// A form is sent once: a second click while its answer is on its way does nothing. The server holds it too (`once`).
const sent = new WeakMap();
addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.timeStamp - (sent.get(event.target) ?? -Infinity) < 10_000) event.preventDefault();
  else sent.set(event.target, event.timeStamp);
});
addEventListener("pageshow", (event) => {
  if (event.persisted) for (const form of document.forms) sent.delete(form);
});
