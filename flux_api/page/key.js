// The API key, for servers that ask for one.
import { html, useState } from "./vendor/htm-preact.js";
import { key, tryKey } from "./api.js";
import { retryRefused } from "./jobs.js";
import { Dialog, closeDialog } from "./parts.js";
import { set, state } from "./state.js";
import { t } from "./words.js";

export function KeyDialog() {
  const [value, setValue] = useState(key.get());
  // Opened because a request was refused, although there is a key.
  const refused = key.get() && state.refusedKey === key.get();
  const [wrong, setWrong] = useState(refused ? "invalid_api_key" : null);
  const use = (chosen) => {
    key.set(chosen);
    closeDialog();
    set({ refusedKey: null });
    retryRefused();
  };
  const typed = (event) => {
    setValue(event.target.value);
    setWrong(null);
  };
  const submit = async (event) => {
    event.preventDefault();
    const chosen = value.trim();
    if (!chosen) return;
    try {
      await tryKey(chosen);
    } catch (error) {
      return setWrong(error.status === 401 ? "invalid_api_key" : "network");
    }
    // Closed meanwhile: no longer wanted.
    if (state.dialog === "key") use(chosen);
  };
  return html`<${Dialog} kind="small" title=${t("key")}><form onSubmit=${submit}>
    <p class="note">${t("keyText")}</p>
    <div class="field"><label for="field-key">${t("key")}</label>
      <input id="field-key" type="password" autocomplete="off" autofocus value=${value}
        aria-invalid=${wrong === "invalid_api_key" ? "true" : null} aria-describedby="key-wrong"
        onInput=${typed} /></div>
    <p id="key-wrong" class="wrong" role="alert">${wrong && t("errors")[wrong].join(t("between"))}</p>
    <div class="row">
      ${key.get() && html`<button type="button" class="button framed" onClick=${() => use("")}>
        ${t("keyForget")}</button>`}
      <button class="button main">${t("keyUse")}</button></div></form><//>`;
}
