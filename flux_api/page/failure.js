// A picture that did not come: what happened, in words, and the one thing to do next.
import { html } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { again, remove } from "./jobs.js";
import { ServerWords, understand } from "./server_words.js";
import { randomSeed } from "./recipe.js";
import { restore, set, setDraft, state } from "./state.js";
import { t } from "./words.js";

const FIELDS = {
  num_inference_steps: "steps", guidance_scale: "guidance", seed: "seed", model: "model",
  negative_prompt: "negative", prompt: "prompt", width: "width", height: "height", size: "size", loras: "loras",
};
const SAME = {
  invalid_mask_image_format: "invalid_image_file",
  concurrency_limit_exceeded: "rate_limit_exceeded",
  integer_above_max_value: "invalid_value", integer_below_min_value: "invalid_value",
  string_above_max_length: "invalid_value", invalid_type: "invalid_value",
};

// Asked for once more with the same seed, they would end in the same way.
const OF_ITS_SEED = ["generation_failed", "content_filtered"];

function kindOf({ status, code }) {
  if (status === 0) return "network";
  const kind = SAME[code] || code;
  return kind in t("errors") ? kind : status === 400 ? "invalid_value" : "other";
}

// The numbers of the error in the page's language, as far as it has any.
function limitsInWords({ code, limits: { minimum, maximum, multiple, given } = {} }) {
  if (code === "string_above_max_length" && maximum != null) return t("tooLong", maximum);
  const words = [];
  if (given != null) words.push(t("given", given));
  if (minimum != null && maximum != null) words.push(t("range", minimum, maximum));
  else if (minimum != null) words.push(t("atLeast", minimum));
  else if (maximum != null) words.push(t("atMost", maximum));
  if (multiple) words.push(t("multiple", multiple));
  return words.join(t("gap"));
}

function explain(job) {
  if (job.state !== "failed") return { title: t(job.state), text: t(`${job.state}Text`) };
  const { error } = job;
  const kind = kindOf(error);
  const field = FIELDS[error.param];
  const [title, usual] = t("errors")[kind];
  const { known, rest: said } = understand(error.message);
  const text = Object.values(known).join(t("gap")) || usual;
  if (kind !== "invalid_value" || !field) return { kind, title, text, said };
  return { kind, field, title: t("fieldWrong", t(field)), text: limitsInWords(error) || text, said };
}

// Back to the form, at the field that was refused.
async function amend(job, field) {
  const { seed } = state.draft;
  await restore(job);
  setDraft({ seed });
  set({ notice: null, optionsOpen: true });
  document.querySelector(".settings").open = true;
  const name = field === "size" ? "width" : field;
  requestAnimationFrame(() => {
    const found = document.querySelector(`#field-${name}, [name="${name}"]`);
    (found || document.getElementById("prompt")).focus();
  });
}

function retry(job, patch = {}) {
  remove(job);
  again(job, patch);
}

export function Failure({ job }) {
  const { kind, field, title, text, said } = explain(job);
  const isBad = job.state === "failed";
  const button = kind === "invalid_api_key"
    ? html`<button class="button main" onClick=${() => set({ dialog: "key" })}>${t("enterKey")}</button>`
    : ["invalid_value", "unsupported_parameter", "model_not_found"].includes(kind)
      ? html`<button class="button main" onClick=${() => amend(job, field)}>${t("amend")}</button>`
      : OF_ITS_SEED.includes(kind)
        ? html`<button class="button main" onClick=${() => retry(job, { seed: randomSeed() })}>${t("otherSeed")}</button>`
        : html`<button class="button main" onClick=${() => retry(job)}>${t("retry")}</button>`;
  return html`<div class="failure ${isBad ? "bad" : ""}" role=${isBad ? "alert" : null}>
    <${Icon} name=${isBad ? "warn" : "stop"} size=${28} />
    <h2>${title}</h2><p>${text}</p>
    ${said && kind !== "invalid_api_key" && html`<${ServerWords} said=${said} />`}
    <div class="row">${button}
      <button class="button framed" onClick=${() => remove(job)}>${t("delete")}</button></div></div>`;
}
