// Every picture that this browser keeps, to search, show again, or take the settings of.
import { html, useState } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { removeAll } from "./jobs.js";
import { Dialog, closeDialog } from "./parts.js";
import { urlOf } from "./pictures.js";
import { restore, set, state, titleOf } from "./state.js";
import { formatNumber, t } from "./words.js";

const MEGABYTE = 1e6;

function Shot({ job }) {
  const name = titleOf(job);
  const choose = () => {
    closeDialog();
    set({ selected: job.id });
  };
  const bringBack = () => {
    closeDialog();
    restore(job);
  };
  return html`<li><button class="shot" aria-label=${name} title=${name}
      onClick=${choose}>
      <img src=${urlOf(job.small)} alt="" loading="lazy" /></button>
    <p>${name}</p>
    <button class="button square quiet" aria-label="${t("restore")}: ${name}" title=${t("restore")}
      onClick=${bringBack}><${Icon} name="undo" /></button></li>`;
}

export function HistoryDialog() {
  const [sought, setSought] = useState("");
  const [sure, setSure] = useState(false);
  const made = state.jobs.filter((job) => job.state === "done");
  const words = sought.toLowerCase().split(/\s+/);
  const found = made.filter((job) => words.every((word) => titleOf(job).toLowerCase().includes(word)));
  const megabytes = made.reduce((sum, { blob }) => sum + blob.size, 0) / MEGABYTE;
  const clear = () => {
    if (!sure) return setSure(true);
    removeAll();
    return closeDialog();
  };
  return html`<${Dialog} kind="history" title=${t("history")}>${made.length
    ? html`<div class="search"><${Icon} name="search" />
        <input type="search" aria-label=${t("search")} placeholder=${t("search")} value=${sought}
          onInput=${(event) => setSought(event.target.value)} /></div>
      <ul class="gallery" tabindex="0" aria-label=${t("recent")}>
        ${found.map((job) => html`<${Shot} key=${job.id} job=${job} />`)}</ul>
      ${!found.length && html`<p class="blank">${t("noMatch")}</p>`}
      <footer><span class="note">${t("count", made.length)} · ${t("kept", formatNumber(megabytes))}</span>
        <button class="button" onClick=${clear}>${t(sure ? "deleteAllSure" : "deleteAll")}</button></footer>`
    : html`<p class="blank">${t("historyEmpty")}</p>`}<//>`;
}
