// Reads a JSONL file as a stream and finds what the API would refuse. It holds a chunk, one line, a hash of each custom_id.
"use strict";
const SHOWN = 100, MOST_NAMES = 200, EVERY_BYTES = 4 * 2 ** 20;
const NOT_JSON = "This line is not parseable as valid JSON.";
const missing = (name) => `Missing required parameter: '${name}'.`;
const lacks = (value) => value === undefined || value === null || value === "";
const decoder = () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

onmessage = ({ data }) => read(data.file, data.most).catch((error) => postMessage({ failed: String(error.message) }));

async function read(file, most) {
  const seen = new SeenLines(most);
  let came = 0, told = 0;
  const counting = new TransformStream({ transform(chunk, next) { came += chunk.length; next.enqueue(chunk); } });
  let stream = file.stream().pipeThrough(counting);
  const [first, second] = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  if (first === 0x1f && second === 0x8b) stream = stream.pipeThrough(new DecompressionStream("gzip"));
  const reader = stream.getReader();
  for (let next; !(next = await reader.read()).done;) {
    seen.take(next.value);
    if (came - told < EVERY_BYTES) continue;
    told = came;
    postMessage({ came, ...seen.soFar() });
  }
  postMessage({ came, ...seen.end().soFar(), ended: true });
}

class SeenLines {
  constructor(most) {
    this.most = most;
    Object.assign(this, { number: 0, lines: 0, faults: 0, shown: 0, fresh: [], url: null });  // `number` counts empty ones
    Object.assign(this, { models: new Map(), unnamed: 0, firstUnnamed: 0, ids: new Set(), text: decoder() });
    Object.assign(this, { held: [], heldBytes: 0 });  // of a line that goes on in the next chunk
  }
  take(chunk) {
    let start = 0;
    for (let end; (end = chunk.indexOf(10, start)) >= 0; start = end + 1) {
      this.hold(chunk.subarray(start, end));
      this.close();
    }
    this.hold(chunk.slice(start));  // a copy: else a short rest would keep the whole chunk
  }
  hold(piece) {
    this.heldBytes += piece.length;
    if (this.heldBytes > this.most.line) this.held = [];  // of a line that is too long the bytes are only counted
    else if (piece.length) this.held.push(piece);
  }
  close() {
    this.number += 1;
    const pieces = this.held, isTooLong = this.heldBytes > this.most.line;
    Object.assign(this, { held: [], heldBytes: 0 });
    let request = null;
    try {
      let text = pieces.map((piece) => this.text.decode(piece, { stream: true })).join("") + this.text.decode();
      if (this.number === 1) text = text.replace(/^\ufeff/, "");
      if (!isTooLong && /^[ \t\r]*$/.test(text)) return;
      request = JSON.parse(text);
    } catch {
      this.text = decoder();  // the old one may keep a part of a character
    }
    this.lines += 1;
    const wrong = isTooLong ? `The line is longer than ${this.most.line} bytes.` : this.check(request);
    if (wrong) this.fault(request?.custom_id, wrong);
    if (this.lines === this.most.lines + 1) this.fault("", `The file holds more than ${this.most.lines} lines.`);
  }
  check(request) {
    if (!isObject(request)) return NOT_JSON;
    const { custom_id: id, method, url, body } = request;
    if (lacks(id)) return missing("custom_id");
    if (typeof id !== "string") return "custom_id must be a string.";
    if (new TextEncoder().encode(id).length > this.most.id) return `custom_id is longer than ${this.most.id} bytes.`;
    const hash = hashed(id);
    if (this.ids.has(hash)) return "An earlier line has this custom_id.";
    if (this.ids.size < this.most.lines) this.ids.add(hash);
    if (lacks(method)) return missing("method");
    if (method !== "POST") return "method must be 'POST'.";
    if (lacks(url)) return missing("url");
    this.url ??= String(url).slice(0, 100);
    if (url !== this.url) return `The url of each line must be that of the first, '${this.url}'.`;
    if (lacks(body)) return missing("body");
    if (!isObject(body)) return "body must be a JSON object.";
    const { model, stream } = body;
    if (!lacks(model) && (typeof model !== "string" || model.length > 200)) return "body.model must be a string of at most 200 characters.";
    if (lacks(model)) this.firstUnnamed = this.unnamed++ ? this.firstUnnamed : this.number;
    else if (this.models.has(model) || this.models.size < MOST_NAMES) this.models.set(model, (this.models.get(model) ?? 0) + 1);
    return stream ? "A batch can't stream: leave out body.stream." : "";
  }
  end() {
    if (this.heldBytes) this.close();
    if (this.lines === 0) this.fault("", "The file holds no requests.");
    return this;
  }
  fault(id, words) {
    this.faults += 1;
    if (this.shown++ < SHOWN) this.fresh.push({ line: this.number, id: typeof id === "string" ? id.slice(0, 80) : "", words });
  }
  soFar() {
    const { lines, faults, unnamed, firstUnnamed, url } = this;
    return { lines, faults, fresh: this.fresh.splice(0), unnamed, firstUnnamed, url, models: [...this.models] };
  }
}

// Two lanes of FNV, 53 bits: two different ids of a million are taken for the same in about one file of 18,000.
function hashed(text) {
  let high = 0x811c9dc5, low = 0x41c6ce57;
  for (let at = 0; at < text.length; at += 1) {
    high = Math.imul(high ^ text.charCodeAt(at), 0x9e3779b1);
    low = Math.imul(low ^ text.charCodeAt(at), 0x01000193);
  }
  return (high >>> 11) * 2 ** 32 + (low >>> 0);
}
