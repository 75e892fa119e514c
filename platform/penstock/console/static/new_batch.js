// New batch: the file goes up in parts while a worker reads it; once both are done, the page of the file comes.
"use strict";
{
  const part = (name) => document.querySelector(`[data-${name}]`);
  const form = document.getElementById("new-batch"), work = document.getElementById("new-batch-work");
  const faults = document.getElementById("new-batch-faults"), problem = document.getElementById("new-batch-problem");
  const input = form.querySelector("input[type=file]"), drop = part("drop"), given = form.dataset;
  const most = { line: Number(given.lineBytes), id: Number(given.idBytes), lines: Number(given.lines) };
  const PASSING = [408, 429, 500, 502, 503, 504], TRIES = 6, MIB = 2 ** 20;
  let running = null;

  const json = (value) => ({ body: JSON.stringify(value), headers: { "content-type": "application/json" } });
  const number = (value) => value.toLocaleString("en");
  const lines = (value) => `${number(value)} line${value === 1 ? "" : "s"}`;
  const size = (bytes) => (bytes < 1024 ? `${bytes} B` : bytes < MIB ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / MIB).toFixed(1)} MiB`);
  const visible = (text) => text.replace(/[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x1f\x7f-\x9f]/g,
    (odd) => `⟨U+${odd.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
  const element = (kind, text, look = "") => Object.assign(document.createElement(kind), { textContent: visible(text), className: look });

  form.querySelector("[data-plain]").hidden = true;
  part("scripted").hidden = false;
  input.addEventListener("change", () => input.files.length && start(input.files[0]));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) start(event.dataTransfer.files[0]);
    });
  }
  part("cancel").addEventListener("click", () => stop("Cancelled: nothing of it is kept."));
  part("mend").addEventListener("click", () => { stop(); input.click(); });
  part("skip").addEventListener("click", () => running.finish("skip").catch(running.failed));
  addEventListener("pagehide", () => stop());  // and if the browser brings the page back, it is as new

  function start(file) {
    stop();
    if (file.size === 0 || file.size > Number(given.fileBytes)) return stop(file.size ? "The file is too large." : "The file is empty.");
    const intake = running = new Intake(file);
    intake.run().catch(intake.failed);
  }

  function stop(words = "") {
    running?.cancel();
    running = null;
    [form.hidden, work.hidden, faults.hidden, part("choices").hidden] = [false, true, true, true];
    faults.querySelector("tbody").replaceChildren();
    input.value = "";
    [problem.hidden, problem.firstElementChild.textContent] = [!words, words];
  }
  // One file on its way.
  class Intake {
    constructor(file) {
      Object.assign(this, { file, halt: new AbortController(), parts: [], id: null, seen: null });
      this.failed = (error) => running === this && stop(error.message);
      this.partBytes = Math.min(64 * MIB, Math.max(Number(given.partBytes), Math.ceil(file.size / 1000)));
    }
    async run() {
      [form.hidden, work.hidden] = [true, false];
      document.getElementById("new-batch-name").textContent = visible(this.file.name);
      this.sent(0);
      await Promise.all([this.read(), this.send()]);
      if (!this.seen.faults) return this.finish("");
      part("choices").hidden = false;
      part("skip").hidden = this.seen.faults >= this.seen.lines;
      document.getElementById("faults-title").focus();
    }
    read() {
      return new Promise((ended, failed) => {
        this.reader = new Worker(given.reader);
        this.reader.onmessage = ({ data }) => {
          if (data.failed) return failed(new Error(`The file can't be read: ${data.failed}`));
          if (running === this) this.show(data);
          if (data.ended) ended();
        };
        this.reader.onerror = () => failed(new Error("The file can't be read: its reader failed."));
        this.reader.postMessage({ file: this.file, most });
      });
    }
    async send() {
      const asked = { filename: this.file.name, purpose: "batch", bytes: this.file.size, mime_type: "application/jsonl" };
      this.id = (await this.ask("", json(asked), null)).id;  // never cut: what was begun must be known to be cancelled
      if (this.halt.signal.aborted) this.cancel();
      for (let at = 0; at < this.file.size; at += this.partBytes) {
        const body = new FormData();
        body.append("data", this.file.slice(at, at + this.partBytes), "part");
        this.parts.push((await this.ask(`/${this.id}/parts`, { body })).id);
        this.sent(Math.min(this.file.size, at + this.partBytes));
      }
    }
    async finish(onInvalid) {
      part("choices").hidden = true;
      const { file } = await this.ask(`/${this.id}/complete`, json({ part_ids: this.parts }));
      this.id = null;
      location.assign(`${given.next}/${file.id}?${new URLSearchParams({ endpoint: this.seen.url ?? "", on_invalid: onInvalid })}`);
    }
    cancel() {
      this.reader?.terminate();
      this.halt.abort();
      if (this.id) fetch(`${given.uploads}/${this.id}/cancel`, { method: "POST", keepalive: true }).catch(() => {});
      this.id = null;
    }

    // Asks until there is an answer: five times more after what may pass, each time after twice as long.
    async ask(path, options, signal = this.halt.signal) {
      for (let tries = 1; ; tries += 1) {
        signal?.throwIfAborted();
        const answer = await fetch(given.uploads + path, { method: "POST", signal, ...options }).catch(() => null);
        const told = answer?.headers.get("content-type")?.includes("json") ? await answer.json() : null;
        if (answer?.ok && !told) throw new Error("You are not logged in any more.");  // that is the login page
        if (answer?.ok) return told;
        if (answer && !PASSING.includes(answer.status) || tries === TRIES) throw new Error(told?.error.message ?? "The connection was lost.");
        part("sent").textContent = `Trying again (${tries} of ${TRIES - 1})…`;
        const seconds = Math.max(2 ** (tries - 1), Number(answer?.headers.get("retry-after") ?? 0));
        await new Promise((over) => { setTimeout(over, 1000 * seconds); signal?.addEventListener("abort", over); });
      }
    }
    sent(bytes) {
      document.getElementById("sent-bar").value = bytes / this.file.size;
      part("sent").textContent = `${size(bytes)} of ${size(this.file.size)}`;
    }
    show(seen) {
      this.seen = seen;
      document.getElementById("read-bar").value = seen.came / this.file.size;
      part("read").textContent = `${size(seen.came)} of ${size(this.file.size)}, ${lines(seen.lines)}`;
      const facts = [["Endpoint", seen.url ?? "–"], ...seen.models.slice(0, 40).map(([name, many]) => [name, lines(many)])];
      if (seen.unnamed) facts.push(["No model", `${lines(seen.unnamed)}, first line ${number(seen.firstUnnamed)}: choose one on the next page`]);
      part("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
      faults.hidden = !seen.faults;
      document.getElementById("faults-title").textContent = `${lines(seen.faults)} would be refused`;
      const rows = faults.querySelector("tbody");
      for (const { line, id, words } of seen.fresh) {
        rows.append(element("tr", ""));
        rows.lastElementChild.append(element("td", number(line), "n"), element("td", words), element("td", id, "mono"));
      }
      part("faults-more").textContent = seen.faults > rows.children.length ? `The first ${rows.children.length} of them:` : "";
    }
  }
  if (input.files.length) start(input.files[0]);  // chosen before this script came
}
