// The Vercel AI SDK against a server: `node vercel.mjs BASE_URL KEY IMAGE MASK`. Prints
// one line of JSON: what each call gave.

import fs from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";

const [baseURL, apiKey, imagePath, maskPath] = process.argv.slice(2);
const image = fs.readFileSync(imagePath);
const mask = fs.readFileSync(maskPath);
const flux = createOpenAICompatible({ name: "flux", baseURL, apiKey });
const openai = createOpenAI({ baseURL, apiKey });
const prompt = "a red heart";
const size = "96x64";

const calls = {
  "openai-compatible": {
    model: flux.imageModel("tiny"),
    prompt,
    n: 2,
    size,
    providerOptions: { flux: { seed: 7, steps: 4, response_format: "b64_json" } },
  },
  "openai-compatible, edit": {
    model: flux.imageModel("tiny"),
    prompt: { text: prompt, images: [image], mask },
    size,
    providerOptions: { flux: { response_format: "b64_json" } },
  },
  openai: { model: openai.image("tiny"), prompt, n: 2, size },
  "openai, edit": {
    model: openai.image("gpt-image-1"),
    prompt: { text: prompt, images: [image] },
    size,
    providerOptions: { openai: { quality: "low" } },
  },
  "openai-compatible, wrong size": {
    model: flux.imageModel("tiny"),
    prompt,
    size: "63x64",
  },
};

const results = {};
for (const [name, call] of Object.entries(calls)) {
  try {
    const { images, warnings, usage } = await generateImage(call);
    const types = images.map((made) => `${made.mediaType}, ${made.uint8Array.length} bytes`);
    results[name] = { images: types, warnings, totalTokens: usage.totalTokens };
  } catch (error) {
    results[name] = { error: error.name, message: error.message };
  }
}
console.log(JSON.stringify(results));
