// The chosen picture, as large as there is room: nothing yet, under way, finished, failed.
import { html, useLayoutEffect, useState } from "./vendor/htm-preact.js";
import { Actions } from "./actions.js";
import { Failure } from "./failure.js";
import { Icon } from "./icons.js";
import { stop } from "./jobs.js";
import { isShown, urlOf } from "./pictures.js";
import { ServerWords, understand } from "./server_words.js";
import { isLive, loadedPart, modelNow, selectedJob, set, setDraft, state, titleOf } from "./state.js";
import { formatNumber, language, t } from "./words.js";

function Examples({ model }) {
  const examples = (model?.examples?.[language] || t("examples")).slice(0, 4);
  const take = (prompt) => {
    setDraft({ prompt });
    document.getElementById("prompt").focus();
  };
  return html`<ul class="examples">${examples.map((text) => html`<li>
    <button class="button framed" onClick=${() => take(text)}>${text}</button></li>`)}</ul>`;
}

function Welcome() {
  const model = modelNow();
  if (!state.capabilities.limits.keeps_results) {
    return html`<div class="welcome"><h2>${t("cannotDraw")}</h2><p>${t("keepsNothing")}</p></div>`;
  }
  return html`<div class="welcome"><h2>${t("welcome")}</h2>
    <p class="narrow">${t("welcomeBelow")}</p><p class="roomy">${t("welcomeLeft")}</p>
    <${Examples} model=${model} />
    <p class="note">${t("dropHint")}</p>
    ${model.demo && html`<p class="demo note">${t("demo")} <code>FLUX_MODEL=klein-4b make serve</code></p>`}</div>`;
}

function NotReady() {
  const { status, reason, progress } = state.status;
  const share = progress ? progress.done / progress.total : null;
  const [title, text] = status === "offline"
    ? t("errors").network
    : [t(`${status}Title`), t(`${status}Text`)];
  return html`<div class="welcome"><h2>${title}</h2><p>${text}</p>
    ${status === "loading" && html`<progress aria-label=${title} ...${share == null ? {} : { value: share }}></progress>`}
    ${share != null && html`<p class="note">${loadedPart()}</p>`}
    ${reason && html`<${ServerWords} said=${reason} />`}</div>`;
}

function progressText({ state: now, step, steps, position }) {
  if (now === "running" && step) return t("step", step, steps);
  if (now === "queued" && position > 0) return t("position", position);
  return t(now);
}

function Progress({ job }) {
  const { step, steps, left } = job;
  const text = progressText(job);
  const known = step ? { value: step } : {};
  return html`<div class="progress">
    <p><b>${text}</b>${left != null && step < steps && html`<span>${t("left", left)}</span>`}</p>
    <progress aria-label=${text} max=${steps || 1} ...${known}></progress>
    <button class="button framed stop" onClick=${() => stop(job)}>
      <${Icon} name="stop" size=${16} />${t("stop")}</button></div>`;
}

// What the server remarked on a finished picture.
function Warning({ said, model }) {
  const { known, rest } = understand(said);
  return html`${Object.values(known).map((text) => html`<p class="note">${text}</p>`)}
    ${known.knowsNoWord && html`<${Examples} model=${model} />`}
    ${rest && html`<p class="note" lang="en">${rest}</p>`}`;
}

function Facts({ job }) {
  const { recipe, size, seconds, warning } = job;
  // Under way they are those of its tiles too, which the bar shows.
  const steps = isLive(job) ? recipe.steps : job.steps ?? recipe.steps;
  const guidance = job.guidance ?? recipe.guidance;
  const facts = [
    size.join(" × "),
    recipe.scale && t("upscaled", recipe.scale),
    `${t("seed")} ${recipe.seed}`,
    steps && `${t("steps")} ${steps}`,
    guidance != null && `${t("guidance")} ${formatNumber(guidance)}`,
    ...(recipe.loras || []).map(({ name, weight }) => `${name} ${formatNumber(weight, 2)}`),
    recipe.model,
    seconds != null && t("seconds", formatNumber(seconds)),
  ];
  return html`<div class="facts">
    <p class="prompt" title=${titleOf(job)}>${titleOf(job)}</p>
    <ul>${facts.filter(Boolean).map((fact) => html`<li>${fact}</li>`)}</ul>
    ${warning && html`<${Warning} said=${warning} model=${modelNow(recipe.model)} />`}</div>`;
}

function Picture({ job }) {
  const [original, setOriginal] = useState(false);
  useLayoutEffect(() => setOriginal(false), [job.id]);
  const busy = isLive(job);
  const [first] = job.inputs || [];
  const before = first && isShown(first) && first.blob;
  const shown = original ? before : job.blob || job.preview;
  const backdrop = busy && !shown ? before : null;
  const name = titleOf(job);
  const look = { "--ratio": job.size[0] / job.size[1], "--width": `${job.size[0] * 1.5}px` };
  return html`<figure class="frame"><div class="picture ${busy ? "busy" : ""}" style=${look}>
    ${backdrop && html`<img class="backdrop" src=${urlOf(backdrop)} alt="" />`}
    ${shown ? html`<img src=${urlOf(shown)} alt=${name} />` : html`<span class="sheen"></span>`}
    ${!busy && before && html`<button class="button framed original" aria-pressed=${original}
      onClick=${() => setOriginal((was) => !was)}>${t("original")}</button>`}
    ${!busy && html`<button class="button framed square enlarge" aria-label=${t("enlarge")} title=${t("enlarge")}
      onClick=${() => set({ dialog: "view" })}><${Icon} name="expand" /></button>`}
  </div></figure>`;
}

export function Stage() {
  const job = selectedJob();
  if (!job) {
    const ready = state.status.status === "ready";
    if (!state.capabilities && state.status.status === "starting") return html`<main class="stage"></main>`;
    return html`<main class="stage"><${ready ? Welcome : NotReady} /></main>`;
  }
  if (!isLive(job) && job.state !== "done") {
    return html`<main class="stage"><${Failure} job=${job} /></main>`;
  }
  return html`<main class="stage"><${Picture} job=${job} />
    <div class="below"><${Facts} job=${job} />
      ${isLive(job) ? html`<${Progress} job=${job} />` : html`<${Actions} job=${job} />`}
    </div></main>`;
}
