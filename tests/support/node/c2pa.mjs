// The C2PA project's own reader, in WebAssembly: `node c2pa.mjs AUTHORITY.pem FILE OFFSET...`.
// Prints one line of JSON: the manifests in FILE, where signers under that authority are
// trusted, and its verdict on FILE with the byte at each OFFSET changed.

import { readFileSync } from "node:fs";
import init, { WasmReader } from "@contentauth/c2pa-wasm";

const [authority, path, ...offsets] = process.argv.slice(2);
const wasm = new URL(import.meta.resolve("@contentauth/c2pa-wasm/c2pa.wasm"));
await init({ module_or_path: readFileSync(wasm) });
const trust = { trust_anchors: readFileSync(authority, "utf8") };
const verify = { remote_manifest_fetch: false, ocsp_fetch: false };
const settings = JSON.stringify({ trust, verify });
const format = `image/${path.split(".").at(-1)}`;
const read = async (bytes) =>
  JSON.parse((await WasmReader.fromBytes(format, bytes, settings)).json());

const file = readFileSync(path);
const changed = {};
for (const offset of offsets.map(Number)) {
  const bytes = Uint8Array.from(file);
  bytes[offset] ^= 1;
  try {
    changed[offset] = (await read(bytes)).validation_state;
  } catch (error) {
    changed[offset] = `unreadable: ${error}`;
  }
}
console.log(JSON.stringify({ ...(await read(Uint8Array.from(file))), changed }));
