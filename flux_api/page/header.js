// Name, state of the server, and what is not about one picture.
import { html } from "./vendor/htm-preact.js";
import { key } from "./api.js";
import { Icon } from "./icons.js";
import { remember } from "./storage.js";
import { isLive, loadedPart, set, state } from "./state.js";
import { LANGUAGES, formatNumber, language, speak, t } from "./words.js";

const GIB = 2 ** 30;

function toneAndText() {
  const own = state.jobs.filter(isLive).length;
  switch (state.status.status) {
    case "ready":
      if (state.capabilities?.auth === "key" && !key.get()) return ["warn", t("keyNeeded")];
      return own ? ["busy", t("busy", own)] : ["good", t("ready")];
    case "loading":
      return ["warn", t("statusLoading")];
    case "failed":
      return ["bad", t("statusFailed")];
    case "draining":
      return ["warn", t("statusDraining")];
    case "starting":
      return ["warn", t("starting")];
    default:
      return ["bad", t("offline")];
  }
}

function Status() {
  const { model, reason, waiting, memory } = state.status;
  const [tone, text] = toneAndText();
  return html`<p class="status ${tone}" role="status" title=${reason || null}>
    <i></i><span>${text}</span>
    ${loadedPart() && html`<span aria-hidden="true">${loadedPart()}</span>`}
    ${model && html`<span class="detail">${model}</span>`}
    ${waiting > 0 && html`<span class="detail">${t("serverQueue", waiting)}</span>`}
    ${memory && html`<span class="detail">
      ${t("memory", formatNumber(memory.used / GIB), formatNumber(memory.total / GIB, 0))}</span>`}</p>`;
}

function flipTheme() {
  const root = document.documentElement;
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme || (isDark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  remember("theme", root.dataset.theme);
}

function Tool({ icon, name, label = name, onClick, extra = "" }) {
  return html`<button class="button quiet ${extra}" aria-label=${label} title=${label} onClick=${onClick}>
    <${Icon} name=${icon} /><span class="tool-name">${name}</span></button>`;
}

export function Header() {
  const other = language === "ja" ? "en" : "ja";
  const change = async () => {
    await speak(other);
    set({});
  };
  return html`<header class="top">
    <h1 class="brand"><img src="page/icon.svg" width="28" height="28" alt="" /><span>Flux Imaging</span></h1>
    <${Status} />
    <nav class="tools" aria-label=${t("tools")}>
      <${Tool} icon="clock" name=${t("history")} onClick=${() => set({ dialog: "history" })} />
      <${Tool} icon="grid" name=${t("compare")} extra="from-tablet" onClick=${() => set({ dialog: "compare" })} />
      ${state.capabilities?.auth === "key" && html`
        <${Tool} icon="key" name=${t("key")} onClick=${() => set({ dialog: "key" })} />`}
      <button class="button quiet" lang=${other} onClick=${change}>
        <span class="long">${LANGUAGES[other]}</span>
        <span class="short" aria-hidden="true">${other === "en" ? "EN" : "日本"}</span></button>
      <button class="button quiet square" aria-label=${t("theme")} title=${t("theme")} onClick=${flipTheme}>
        <${Icon} name="sun" /></button>
    </nav></header>`;
}
