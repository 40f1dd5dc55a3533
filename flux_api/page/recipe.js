// A recipe is all that one picture was asked for with. From it come the request and its
// copies as code.

const ROUTES = {
  generate: "v1/images/generations",
  edit: "v1/images/edits",
  inpaint: "v1/images/edits",
  variation: "v1/images/variations",
  upscale: "v1/images/upscale",
};

// Japanese keyboards write digits, commas and signs as wide as letters.
export const narrow = (text) => text.normalize("NFKC");

export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

// The route, and the fields as JSON has them; pictures come on top.
export function requestOf(recipe) {
  const { mode, model, prompt, negative, size, scale, seed, steps, guidance, format, loras } = recipe;
  const fields = { model, seed };
  if (prompt) fields.prompt = prompt;
  if (size) fields.size = size.join("x");
  if (scale) fields.scale = scale;
  if (steps != null) fields.num_inference_steps = steps;
  if (guidance != null) fields.guidance_scale = guidance;
  if (negative) fields.negative_prompt = negative;
  if (loras?.length) fields.loras = loras.map(({ name, weight }) => ({ name, adapter_weight: weight }));
  if (format && format !== "png") fields.output_format = format;
  return { path: ROUTES[mode], fields };
}

export const asText = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

// The body for fetch: JSON where there is no picture, else a form.
export function bodyOf(fields, inputs, mask) {
  if (!inputs.length) {
    return { body: JSON.stringify(fields), headers: { "Content-Type": "application/json" } };
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, asText(value));
  inputs.forEach(({ blob }, index) => form.append("image[]", blob, `input-${index + 1}.png`));
  if (mask) form.append("mask", mask.blob, "mask.png");
  return { body: form, headers: {} };
}

const SHAPES = [[1, 1], [4, 3], [3, 2], [16, 9], [4, 5], [3, 4], [2, 3], [9, 16]];

const onGrid = (side, { multiple, minimum, maximum }) =>
  Math.min(maximum, Math.max(minimum, Math.round(side / multiple) * multiple));

export function fitSize(width, height, sizes) {
  const sides = [width, height].map((side) => Math.max(1, side));
  const shrink = Math.min(1, Math.sqrt(sizes.max_pixels / (sides[0] * sides[1])));
  const fitted = sides.map((side) => onGrid(side * shrink, sizes));
  // Rounding both sides up can pass the limit.
  while (fitted[0] * fitted[1] > sizes.max_pixels) fitted[fitted[0] < fitted[1] ? 1 : 0] -= sizes.multiple;
  return fitted;
}

// The usual shapes at about the model's own number of pixels.
export function shapesOf(sizes) {
  const pixels = sizes.default[0] * sizes.default[1];
  return SHAPES.map(([a, b]) => ({
    label: `${a}:${b}`,
    ratio: a / b,
    size: fitSize(Math.sqrt((pixels * a) / b), Math.sqrt((pixels * b) / a), sizes),
  }));
}

// By how much a finished picture can be made larger.
export const scalesOf = (size, { max_upscaled_side: most }) =>
  [2, 4].filter((scale) => Math.max(...size) * scale <= most);

// For a model that makes none larger: twice the size, as far as it goes; null where it is the
// largest already.
export function largerSize([width, height], sizes) {
  const room = Math.min(
    2,
    sizes.maximum / Math.max(width, height),
    Math.sqrt(sizes.max_pixels / (width * height)),
  );
  const down = (side) => Math.floor((side * room) / sizes.multiple) * sizes.multiple;
  const size = [down(width), down(height)];
  return size[0] * size[1] > width * height ? size : null;
}
