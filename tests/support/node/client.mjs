// An OpenAI client for Node that takes calls: `node client.mjs PACKAGE` reads one JSON
// object a line and answers each with one line. A call is {"call", "url", "key"?,
// "azure"?, "retries"?, "timeout"?, "params"?, "given"?, "image"?, "mask"?, ...}.

import fs from "node:fs";
import readline from "node:readline";

const { default: OpenAI, AzureOpenAI, toFile } = await import(process.argv[2]);

function connect({ url, azure, key = "none", retries = 0, timeout }) {
  const options = { maxRetries: retries, timeout, apiKey: key };
  return azure
    ? new AzureOpenAI({ ...options, endpoint: url, apiVersion: "2025-04-01" })
    : new OpenAI({ ...options, baseURL: url });
}

// The same picture in the ways in which JavaScript hands one over.
const pictures = {
  file: (bytes) => new File([bytes], "a.png", { type: "image/png" }),
  toFile: (bytes) => toFile(bytes, "b.png"),
  stream: (_, path) => fs.createReadStream(path),
  list: async (bytes) => [await toFile(bytes, "c.png", { type: "image/png" })],
  two: async (bytes) => [await toFile(bytes, "d.png"), await toFile(bytes, "e.png")],
};

const calls = {
  generate: (client, params) => client.images.generate(params),
  edit: (client, params) => client.images.edit(params),
  variation: (client, params) => client.images.createVariation(params),
  retrieve: (client, _, { model }) => client.models.retrieve(model),
  models: async (client) => {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    return ids;
  },
  events: async (client, params, { method }) => {
    const events = [];
    for await (const event of await client.images[method](params)) events.push(event);
    return events;
  },
  // Leaves the loop at the first event, which closes the connection.
  leave: async (client, params, { method }) => {
    for await (const event of await client.images[method](params)) return event.type;
  },
  abort: (client, params) => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 300);
    return client.images.generate(params, { signal: controller.signal });
  },
};

async function run(task) {
  const params = task.params ?? {};
  if (task.given) {
    const bytes = fs.readFileSync(task.image);
    params.image = await pictures[task.given](bytes, task.image);
  }
  if (task.mask) params.mask = await toFile(fs.readFileSync(task.mask), "mask.png");
  try {
    const result = await calls[task.call](connect(task), params, task);
    return { result, requestId: result?._request_id };
  } catch (error) {
    const { status, code, param, type, message, requestID } = error;
    const name = error.constructor.name;
    return { error: { name, status, code, param, type, message, requestID } };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
