// The recipe that a picture's own file carries: docs/marking.md says what stands in it.
const FOUND = /<flux:Recipe>([^<]{2,1000000})<\/flux:Recipe>/;
const ENTITIES = { "&quot;": '"', "&#34;": '"', "&apos;": "'", "&#39;": "'", "&amp;": "&" };

const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (typeof value === "number" ? value : null);
const list = (value) => (Array.isArray(value) ? value : []);

// Null where there is none. Anybody may have written it.
export async function readRecipe(blob) {
  const found = FOUND.exec(new TextDecoder().decode(await blob.arrayBuffer()));
  try {
    const told = JSON.parse(found[1].replace(/&[a-z#0-9]+;/g, (name) => ENTITIES[name] ?? name));
    return told.recipe === 1 ? understand(told) : null;
  } catch {
    return null;
  }
}

// As the page's own recipes are, and beside it what the file only tells the hashes of.
function understand(told) {
  const loras = list(told.loras).filter((lora) => text(lora?.name));
  const recipe = {
    mode: told.mode,
    model: text(told.model),
    prompt: text(told.prompt),
    negative: text(told.negative_prompt),
    size: number(told.width) && number(told.height) ? [told.width, told.height] : null,
    // A larger one is no number that JavaScript can hold.
    seed: Number.isSafeInteger(told.seed) ? told.seed : null,
    steps: number(told.num_inference_steps),
    guidance: number(told.guidance_scale),
    format: ["jpeg", "webp"].includes(told.output_format) ? told.output_format : "png",
    loras: loras.map(({ name, adapter_weight: weight }) => ({ name, weight: number(weight) ?? 1 })),
  };
  const prompts = [told.prompt_sha256, told.negative_prompt_sha256].filter(text);
  const inputs = list(told.inputs).filter(text);
  const pictures = [...inputs, told.mask].filter(text);
  return { recipe, prompts, inputs, pictures, strength: number(told.strength), seedIsLarge: recipe.seed == null };
}
