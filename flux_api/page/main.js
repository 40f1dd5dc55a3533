// The page as a whole: what is where, what is dropped or pasted on it, how it starts.
import { html, render, useLayoutEffect, useState } from "./vendor/htm-preact.js";
import { getJson, key } from "./api.js";
import { CodeDialog } from "./code.js";
import { CompareDialog } from "./compare.js";
import { Composer, submitForm } from "./composer.js";
import { HistoryDialog } from "./history.js";
import { Header } from "./header.js";
import { openJobs, resume } from "./jobs.js";
import { KeyDialog } from "./key.js";
import { MaskDialog } from "./mask.js";
import { recall } from "./storage.js";
import { Notice } from "./parts.js";
import { Stage } from "./stage.js";
import { addFiles, onChange, openStore, set, state } from "./state.js";
import { Strip } from "./strip.js";
import { ViewDialog } from "./view.js";
import { firstLanguage, speak, t } from "./words.js";

const DIALOGS = {
  code: CodeDialog, compare: CompareDialog, history: HistoryDialog,
  key: KeyDialog, mask: MaskDialog, view: ViewDialog,
};

// Files dropped or pasted anywhere, and the shortcut.
function useWholePage(setOver) {
  useLayoutEffect(() => {
    let inside = 0;
    const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
    const leave = () => {
      inside = 0;
      setOver(false);
    };
    const handlers = {
      dragenter: (event) => {
        if (state.dialog || !hasFiles(event)) return;
        inside += 1;
        setOver(true);
      },
      dragleave: () => {
        inside -= 1;
        if (inside <= 0) leave();
      },
      dragover: (event) => hasFiles(event) && event.preventDefault(),
      drop: (event) => {
        leave();
        if (!event.dataTransfer.files.length) return;
        event.preventDefault();
        if (!state.dialog) addFiles([...event.dataTransfer.files]);
      },
      paste: (event) => {
        const files = [...event.clipboardData.files];
        if (!files.length || state.dialog) return;
        event.preventDefault();
        addFiles(files);
      },
      keydown: (event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || state.dialog) return;
        event.preventDefault();
        submitForm();
      },
    };
    const entries = Object.entries(handlers);
    for (const [name, handler] of entries) addEventListener(name, handler);
    return () => entries.forEach(([name, handler]) => removeEventListener(name, handler));
  }, []);
}

function Page() {
  const [over, setOver] = useState(false);
  useWholePage(setOver);
  const Dialog = DIALOGS[state.dialog];
  return html`<div class="page">
      <${Header} /><${Composer} /><${Stage} /><${Strip} />
    </div>
    ${over && html`<div class="drop"><p>${t("dropHere")}</p></div>`}
    ${Dialog && html`<${Dialog} key=${state.dialog} />`}
    ${!Dialog && html`<${Notice} />`}
    <p class="unseen" role="status">${state.spoken}</p>`;
}

async function look() {
  try {
    const status = await getJson("v1/status");
    // Another server may have come back than the one that went.
    const isNew = state.status.status === "offline" || status.model !== state.status.model;
    const known = isNew ? null : state.capabilities;
    const capabilities = known || (await getJson("v1/capabilities"));
    if (capabilities !== state.capabilities) set({ capabilities });
    if (JSON.stringify(status) !== JSON.stringify(state.status)) set({ status });
    if (status.status === "ready") resume();
  } catch {
    if (state.status.status !== "offline") set({ status: { status: "offline" } });
  }
}

async function watchServer() {
  if (!document.hidden) await look();
  setTimeout(watchServer, state.status.status === "ready" ? 4000 : 1500);
}

async function begin() {
  const theme = recall("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  await speak(firstLanguage());
  onChange(() => render(html`<${Page} />`, document.getElementById("app")));
  await Promise.all([openStore(), openJobs()]);
  await watchServer();
  if (state.capabilities?.auth === "key" && !key.get()) set({ dialog: "key" });
  else if (matchMedia("(hover: hover)").matches) document.getElementById("prompt")?.focus();
}

begin();
