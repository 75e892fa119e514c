// What a program does with OpenAI's SDK for Node: `node sdk.js WHAT`, its outcome as one line of JSON.

const OpenAI = require("openai").default;
const { toFile } = require("openai");

const { BASE_URL: baseURL, API_KEY: apiKey, LINES: lines } = process.env;
const patient = new OpenAI({ baseURL, apiKey });
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const terms = { endpoint: "/v1/chat/completions", completion_window: "24h" };
const ended = ["completed", "failed", "expired", "cancelled"];

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const upload = async (data) => client.files.create({ file: await toFile(Buffer.from(data), "in.jsonl"), purpose: "batch" });
const content = async (id) => (await (await client.files.content(id)).text()).trim().split("\n").map((line) => JSON.parse(line));

async function end(id) {
  for (;;) {
    const batch = await client.batches.retrieve(id);
    if (ended.includes(batch.status)) return batch;
    await sleep(100);
  }
}

async function met(list, remove) {
  const ids = [];
  for await (const one of list) {
    ids.push(one.id);
    await remove(one.id);
  }
  return ids;
}

async function failure(ask) {
  try {
    await ask();
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.param, /^req_/.test(error.requestID)];
  }
  return null;
}

const actions = {
  async life() {
    const file = await upload(lines);
    const created = await client.batches.create({ ...terms, input_file_id: file.id, metadata: { of: "node" } });
    const batch = await end(created.id);
    return { created, batch, output: await content(batch.output_file_id), errors: await content(batch.error_file_id) };
  },

  async cancel() {
    const file = await upload(lines);
    const batch = await client.batches.create({ ...terms, input_file_id: file.id });
    const cancelled = await client.batches.cancel(batch.id);
    return [cancelled.status, (await end(batch.id)).status];
  },

  async upload() {
    const data = Buffer.from(lines);
    const half = data.length >> 1;
    const begun = await client.uploads.create({
      bytes: data.length, filename: "in.jsonl", mime_type: "application/jsonl", purpose: "batch",
    });
    const part = async (piece) => client.uploads.parts.create(begun.id, { data: await toFile(piece, "part") });
    const last = await part(data.subarray(half)); // the order is what complete says
    const first = await part(data.subarray(0, half));
    const done = await client.uploads.complete(begun.id, { part_ids: [first.id, last.id] });
    const other = await client.uploads.create({
      bytes: 3, filename: "other.jsonl", mime_type: "application/jsonl", purpose: "batch",
    });
    const cancelled = await client.uploads.cancel(other.id);
    return { done, cancelled, same: (await (await client.files.content(done.file.id)).text()) === lines };
  },

  async files() {
    const made = [];
    for (let n = 0; n < 60; n++) made.push((await upload("{}")).id);
    const found = await met(client.files.list({ limit: 10, order: "asc" }), (id) => client.files.delete(id));
    return { made, found, left: (await client.files.list()).data.length };
  },

  async batches() {
    const file = await upload("{}");
    const made = [];
    for (let n = 0; n < 40; n++) made.push((await client.batches.create({ ...terms, input_file_id: file.id })).id);
    for (const id of made) await end(id);
    const found = await met(client.batches.list({ limit: 7 }), (id) => client.delete(`/batches/${id}`));
    return { made: made.reverse(), found, left: (await client.batches.list()).data.length };
  },

  async errors() {
    const file = await upload("{}");
    const wrong = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
    const batch = await client.batches.create({ ...terms, input_file_id: file.id });
    await end(batch.id);
    return {
      401: await failure(() => wrong.batches.list()),
      404: await failure(() => client.files.retrieve("file-none")),
      400: await failure(() => client.batches.create({ ...terms, input_file_id: "file-none" })),
      409: await failure(() => client.batches.cancel(batch.id)),
    };
  },

  async limited() {
    for (let n = 0; n < 50; n++) {
      const found = await failure(() => client.models.list());
      if (found) return found;
    }
    return null;
  },

  async repeat() {
    const file = await patient.files.create({ file: await toFile(Buffer.from("{}"), "in.jsonl"), purpose: "batch" });
    console.error("ready"); // now every create waits: the SDK gives up after a second, and asks again
    await new Promise((resolve) => process.stdin.once("data", resolve));
    process.stdin.destroy();
    const hasty = new OpenAI({ baseURL, apiKey, timeout: 1000, maxRetries: 5 });
    return hasty.batches.create({ ...terms, input_file_id: file.id });
  },
};

actions[process.argv[2]]().then(
  (outcome) => process.stdout.write(JSON.stringify(outcome)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
