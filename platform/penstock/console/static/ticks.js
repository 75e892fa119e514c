// A box that ticks all boxes of a name on its page; without scripts it is not there.
"use strict";

for (const all of document.querySelectorAll("[data-ticks]")) {
  const boxes = () => [...all.form.querySelectorAll(`input[type=checkbox][name="${all.dataset.ticks}"]`)];
  const told = () => {
    const ticked = boxes().filter((box) => box.checked).length;
    all.checked = ticked > 0 && ticked === boxes().length;
    all.indeterminate = ticked > 0 && !all.checked;
  };
  all.hidden = false;
  all.addEventListener("change", () => boxes().forEach((box) => { box.checked = all.checked; }));
  all.form.addEventListener("change", (event) => { if (event.target !== all) told(); });
  told();
}
