// A picture's request as curl, Python with OpenAI's SDK, and JavaScript: each runs as copied.
import { addressOf } from "./api.js";
import { asText, requestOf } from "./recipe.js";

const shellQuoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;
// JSON's words for values are Python's but for three.
const pythonOf = (value) => {
  if (Array.isArray(value)) return `[${value.map(pythonOf).join(", ")}]`;
  if (value && typeof value === "object") {
    return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${pythonOf(one)}`).join(", ")}}`;
  }
  return { true: "True", false: "False", null: "None" }[String(value)] ?? JSON.stringify(value);
};

function curl({ address, fields, files, type, secured, output }) {
  const lines = [`curl -fsS ${shellQuoted(address)}`, `-H 'Accept: ${type}'`];
  // In double quotes: the shell is to fill it in.
  if (secured) lines.push('-H "Authorization: Bearer $FLUX_API_KEY"');
  if (files.length) {
    // Not -F: it reads a file where a text begins with @.
    for (const [name, value] of Object.entries(fields)) {
      lines.push(`--form-string ${shellQuoted(`${name}=${asText(value)}`)}`);
    }
    for (const [name, file] of files) lines.push(`-F ${shellQuoted(`${name}=@${file}`)}`);
  } else {
    lines.push("-H 'Content-Type: application/json'", `-d ${shellQuoted(JSON.stringify(fields))}`);
  }
  return `${[...lines, `-o ${output}`].join(" \\\n  ")}\n`;
}

const METHODS = { generate: "generate", edit: "edit", inpaint: "edit", variation: "create_variation" };
const NAMED = {
  generate: ["prompt", "model", "size", "output_format"],
  edit: ["prompt", "model", "size", "output_format"],
  inpaint: ["prompt", "model", "size", "output_format"],
  variation: ["model", "size"],
};

const opened = (file) => `open("${file}", "rb")`;

// A method of the SDK and its arguments.
function usualCall({ mode, fields, files }) {
  const named = NAMED[mode].filter((name) => name in fields);
  const extra = Object.fromEntries(Object.entries(fields).filter(([name]) => !named.includes(name)));
  const inputs = files.filter(([name]) => name !== "mask").map(([, file]) => opened(file));
  const pictures = mode === "variation" ? inputs[0] : `[${inputs.join(", ")}]`;
  return [`images.${METHODS[mode]}`, [
    ...(inputs.length ? [`image=${pictures}`] : []),
    ...(mode === "inpaint" ? [`mask=${opened("mask.png")}`] : []),
    ...named.map((name) => `${name}=${pythonOf(fields[name])}`),
    'response_format="b64_json"',
    `extra_body=${pythonOf(extra)}`,
  ]];
}

// The SDK has no method for a route of this server's own.
const ownCall = ({ route, fields, files: [[, file]] }) => ["post", [
  pythonOf(route),
  "cast_to=ImagesResponse",
  `body=${pythonOf({ ...fields, response_format: "b64_json" })}`,
  `files={"image": ${opened(file)}}`,
  'options={"headers": {"Content-Type": "multipart/form-data"}}',
]];

function python(about) {
  const { base, mode, secured, output } = about;
  const isOwn = mode === "upscale";
  const [method, values] = isOwn ? ownCall(about) : usualCall(about);
  const key = secured ? 'os.environ["FLUX_API_KEY"]' : '"any"';
  return `import base64
${secured ? "import os\n" : ""}
from openai import OpenAI
${isOwn ? "from openai.types import ImagesResponse\n" : ""}
client = OpenAI(base_url="${base}", api_key=${key})
answer = client.${method}(
${values.map((value) => `    ${value},`).join("\n")}
)
with open("${output}", "wb") as file:
    file.write(base64.b64decode(answer.data[0].b64_json))
`;
}

function javascript({ address, fields, files, type, secured, output }) {
  const headers = [`Accept: "${type}"`];
  if (secured) headers.push("Authorization: `Bearer ${process.env.FLUX_API_KEY}`");
  if (!files.length) headers.push('"Content-Type": "application/json"');
  const lines = [`import { ${files.length ? "readFile, " : ""}writeFile } from "node:fs/promises";`, ""];
  if (files.length) {
    lines.push("const body = new FormData();");
    for (const [name, value] of Object.entries(fields)) {
      lines.push(`body.append(${JSON.stringify(name)}, ${JSON.stringify(asText(value))});`);
    }
    for (const [name, file] of files) {
      lines.push(`body.append("${name}", new Blob([await readFile("${file}")]), "${file}");`);
    }
  } else {
    lines.push(`const body = JSON.stringify(${JSON.stringify(fields, null, 2)});`);
  }
  lines.push(
    `const answer = await fetch("${address}", {`,
    '  method: "POST",',
    `  headers: { ${headers.join(", ")} },`,
    "  body,",
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
    `await writeFile("${output}", Buffer.from(await answer.arrayBuffer()));`,
    "",
  );
  return lines.join("\n");
}

export function snippets({ recipe, inputs = [], mask }, secured) {
  const { path, fields } = requestOf(recipe);
  const format = recipe.format || "png";
  const files = inputs.map((_, index) => ["image[]", `input-${index + 1}.png`]);
  if (mask) files.push(["mask", "mask.png"]);
  const about = {
    address: addressOf(path), base: addressOf("v1"), route: path.slice(2), mode: recipe.mode, fields, files, secured,
    type: `image/${format}`, output: `picture.${format === "jpeg" ? "jpg" : format}`,
  };
  return { curl: curl(about), Python: python(about), JavaScript: javascript(about) };
}
