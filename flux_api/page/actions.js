// What can be done with a finished picture.
import { html } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import * as jobs from "./jobs.js";
import { Menu, copyText } from "./parts.js";
import { download } from "./pictures.js";
import { largerSize, randomSeed, scalesOf } from "./recipe.js";
import { modelNow, notify, restore, set, setDraft, setInputs, state, titleOf } from "./state.js";
import { t } from "./words.js";

function fileName(job) {
  const words = titleOf(job).replace(/[^\p{L}\p{N}]+/gu, "-");
  return `${words.slice(0, 40).replace(/^-+|-+$/g, "")}-${job.recipe.seed}`;
}

function takeAsInput(job) {
  setInputs([{ blob: job.blob, width: job.size[0], height: job.size[1] }]);
  setDraft({ prompt: "", size: null });
  document.getElementById("prompt").focus();
}

function makeLarger(job) {
  const size = largerSize(job.size, modelNow(job.recipe.model).sizes);
  if (size) jobs.again(job, { size });
  else notify(t("largest"));
}

// The menu's ways to make `job` larger: its text, and what it does.
function waysLarger(job) {
  const model = modelNow(job.recipe.model);
  if (!model) return [];
  if (!model.tasks.upscale) return [[t("upscale"), () => makeLarger(job)]];
  const scales = scalesOf(job.size, state.capabilities.limits);
  if (!scales.length) return [[t("upscale"), () => notify(t("largest"))]];
  return scales.map((scale) => [t("upscaleBy", scale), () => jobs.upscale(job, scale)]);
}

async function compare(job) {
  await restore(job);
  set({ dialog: "compare", notice: null });
}

async function copyLink(job) {
  await copyText(job.url);
  notify(t("copied"));
}

export function Actions({ job }) {
  const { seed } = job.recipe;
  const main = (icon, text, act) => html`<button class="button framed" onClick=${act}>
    <${Icon} name=${icon} /><span>${text}</span></button>`;
  const item = (icon, text, act) => html`<button class="button" onClick=${act}>
    <${Icon} name=${icon} />${text}</button>`;
  return html`<div class="actions" role="group" aria-label=${t("actions")}>
    ${main("image", t("useAsInput"), () => takeAsInput(job))}
    ${main("vary", t("vary"), () => jobs.vary(job))}
    ${main("again", t("again"), () => jobs.again(job, { seed: randomSeed() }))}
    <${Menu} icon="down" name=${t("download")}>${["png", "jpeg", "webp"].map((format) =>
      item("down", format.toUpperCase(), () => download(job.blob, fileName(job), `image/${format}`)))}<//>
    <${Menu} icon="more" name=${t("moreActions")}>
      ${item("hash", t("sameSeed"), () => setDraft({ seed }))}
      ${item("add", t("nextSeed"), () => jobs.again(job, { seed: seed + 1 }))}
      ${waysLarger(job).map(([text, act]) => item("expand", text, act))}
      <hr />
      ${job.url && item("link", t("copyLink"), () => copyLink(job))}
      ${item("code", t("copyCode"), () => set({ dialog: "code" }))}
      ${item("grid", t("compare"), () => compare(job))}
      ${item("undo", t("restore"), () => restore(job))}
      <hr />
      ${item("trash", t("delete"), () => jobs.removeWithUndo(job))}<//></div>`;
}
