// The chosen picture's request as code.
import { html, useState } from "./vendor/htm-preact.js";
import { key } from "./api.js";
import { Icon } from "./icons.js";
import { Dialog, copyText } from "./parts.js";
import { download, isShown } from "./pictures.js";
import { snippets } from "./snippets.js";
import { selectedJob } from "./state.js";
import { t } from "./words.js";

export function CodeDialog() {
  const job = selectedJob();
  const texts = snippets(job, Boolean(key.get()));
  const names = Object.keys(texts);
  const [chosen, choose] = useState(names[0]);
  const [copied, setCopied] = useState("");
  const inputs = job.inputs || [];
  const saveInputs = () => {
    inputs.forEach((input, index) => {
      // What the browser cannot show, it cannot convert: the bytes that were sent, then.
      const file = isShown(input) ? input.blob : new Blob([input.blob], { type: "image/png" });
      download(file, `input-${index + 1}`, "image/png");
    });
    if (job.mask) download(job.mask.blob, "mask");
  };
  const copy = async () => {
    await copyText(texts[chosen]);
    setCopied(chosen);
  };
  const move = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const next = names[names.indexOf(chosen) + by];
    if (!next) return;
    choose(next);
    document.getElementById(`tab-${next}`).focus();
  };
  return html`<${Dialog} kind="code" title=${t("copyCode")}>
    <p class="note">${t("codeText")} ${inputs.length > 0 && t("codeInputs")}</p>
    <div class="tabs" role="tablist" onKeyDown=${move}>${names.map((name) => html`
      <button class="button" role="tab" id=${`tab-${name}`} aria-selected=${name === chosen}
        aria-controls="snippet" tabindex=${name === chosen ? 0 : -1} onClick=${() => choose(name)}>${name}</button>`)}</div>
    <pre id="snippet" role="tabpanel" aria-labelledby=${`tab-${chosen}`} tabindex="0"><code>${texts[chosen]}</code></pre>
    <div class="row">
      ${inputs.length > 0 && html`<button class="button framed" onClick=${saveInputs}>${t("saveInputs")}</button>`}
      <button class="button main" onClick=${copy}><${Icon} name=${copied === chosen ? "check" : "code"} />
        ${t(copied === chosen ? "copied" : "copy")}</button></div><//>`;
}
