// The Model Context Protocol's own TypeScript SDK against a server: `node mcp.mjs URL KEY`.
// Prints one line of JSON: what it was told.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key] = process.argv.slice(2);
const requestInit = { headers: { Authorization: `Bearer ${key}` } };
const transport = new StreamableHTTPClientTransport(new URL(url), { requestInit });
const client = new Client({ name: "test", version: "1.0.0" });
await client.connect(transport);
const { tools } = await client.listTools();
const call = (name, args) => client.callTool({ name, arguments: args });
const small = { prompt: "a red heart", size: "64x64", seed: 7 };
const results = {
  server: client.getServerVersion(),
  tools: tools.map((tool) => tool.name),
  generated: await call("generate_image", { ...small, n: 2 }),
  refused: await call("generate_image", { ...small, size: "63x64" }),
};
await client.close();
console.log(JSON.stringify(results));
