// The AI SDK's provider of Black Forest Labs against a server: `node bfl.mjs BASE_URL KEY
// IMAGE MASK`. Prints one line of JSON: what each call gave.

import fs from "node:fs";
import { createBlackForestLabs } from "@ai-sdk/black-forest-labs";
import { generateImage } from "ai";

const [baseURL, apiKey, imagePath, maskPath] = process.argv.slice(2);
const image = fs.readFileSync(imagePath);
const mask = fs.readFileSync(maskPath);
const flux = createBlackForestLabs({ baseURL, apiKey, pollIntervalMillis: 100 });
const text = "a red heart";
const safe = { blackForestLabs: { safetyTolerance: 2, promptUpsampling: true } };

const calls = {
  generate: {
    model: flux.image("flux-pro-1.1"),
    prompt: text,
    seed: 7,
    aspectRatio: "16:9",
    providerOptions: {
      blackForestLabs: { width: 256, height: 320, outputFormat: "png", ...safe.blackForestLabs },
    },
  },
  ratio: { model: flux.image("flux-2-pro"), prompt: text, aspectRatio: "16:9", n: 2 },
  edit: { model: flux.image("flux-kontext-pro"), prompt: { text, images: [image] } },
  fill: { model: flux.image("flux-pro-1.0-fill"), prompt: { text, images: [image], mask } },
  refused: {
    model: flux.image("flux-dev"),
    prompt: text,
    providerOptions: { blackForestLabs: { width: 257 } },
  },
  failed: { model: flux.image("flux-dev"), prompt: "fail=pipeline" },
};

const results = {};
for (const [name, call] of Object.entries(calls)) {
  try {
    const { images, providerMetadata } = await generateImage({ maxRetries: 0, ...call });
    results[name] = {
      types: images.map((made) => made.mediaType),
      data: images.map((made) => made.base64),
      seeds: providerMetadata.blackForestLabs.images.map((made) => made.seed),
    };
  } catch (error) {
    results[name] = { error: error.name, message: error.message };
  }
}
console.log(JSON.stringify(results));
