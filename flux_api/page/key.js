// The API key, for servers that ask for one.
import { html, useState } from "./vendor/htm-preact.js";
import { key } from "./api.js";
import { retryRefused } from "./jobs.js";
import { Dialog, closeDialog } from "./parts.js";
import { set } from "./store.js";
import { t } from "./words.js";

export function KeyDialog() {
  const [value, setValue] = useState(key.get());
  const use = (chosen) => {
    key.set(chosen);
    closeDialog();
    retryRefused();
    set({});
  };
  const submit = (event) => {
    event.preventDefault();
    if (value.trim()) use(value.trim());
  };
  return html`<${Dialog} kind="small" title=${t("key")}><form onSubmit=${submit}>
    <p class="note">${t("keyText")}</p>
    <div class="field"><label for="field-key">${t("key")}</label>
      <input id="field-key" type="password" autocomplete="off" autofocus value=${value}
        onInput=${(event) => setValue(event.target.value)} /></div>
    <div class="row">
      ${key.get() && html`<button type="button" class="button framed" onClick=${() => use("")}>
        ${t("keyForget")}</button>`}
      <button class="button main">${t("keyUse")}</button></div></form><//>`;
}
