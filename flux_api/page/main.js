// The page as a whole: what is where, what is dropped or pasted on it, how it starts.
import { html, render, useLayoutEffect, useState } from "./vendor/htm-preact.js";
import { getJson, key, timeLimit } from "./api.js";
import { CodeDialog } from "./code.js";
import { CompareDialog } from "./compare.js";
import { Composer, submitForm } from "./composer.js";
import { HistoryDialog } from "./history.js";
import { Header } from "./header.js";
import { openJobs, resume } from "./jobs.js";
import { KeyDialog } from "./key.js";
import { MaskDialog } from "./mask.js";
import { recall } from "./storage.js";
import { Notice, pastedFiles } from "./parts.js";
import { Stage } from "./stage.js";
import { addFiles, onChange, openStore, set, state } from "./state.js";
import { Strip } from "./strip.js";
import { ViewDialog } from "./view.js";
import { firstLanguage, speak, t } from "./words.js";

const DIALOGS = {
  code: CodeDialog, compare: CompareDialog, history: HistoryDialog,
  key: KeyDialog, mask: MaskDialog, view: ViewDialog,
};

const PATIENCE_MS = 20_000;
const CAPABILITIES_MS = 10_000;
let capabilitiesUntil = 0;

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
        const files = pastedFiles(event);
        if (!files.length || state.dialog) return;
        event.preventDefault();
        addFiles(files);
      },
      keydown: (event) => {
        if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
        if (state.dialog || event.isComposing) return;
        event.preventDefault();
        // A key that is held is one wish.
        if (!event.repeat) submitForm();
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
    <p class="unseen" role="status"><span key=${state.spoken.count}>${state.spoken.text}</span></p>`;
}

const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

async function look() {
  // Not as long as a connection takes to die that something on the way has forgotten.
  const options = { signal: timeLimit(PATIENCE_MS) };
  try {
    const status = await getJson("v1/status", options);
    // Another server may have come back than the one that went, or LoRAs been added.
    const isNew = state.status.status === "offline" || status.model !== state.status.model;
    if (isNew || performance.now() > capabilitiesUntil) {
      const capabilities = await getJson("v1/capabilities", options);
      capabilitiesUntil = performance.now() + CAPABILITIES_MS;
      if (!isSame(capabilities, state.capabilities)) set({ capabilities });
    }
    if (!isSame(status, state.status)) set({ status });
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
  if (state.capabilities?.auth === "key" && !key.get() && !state.dialog) set({ dialog: "key" });
  else if (matchMedia("(hover: hover)").matches) document.getElementById("prompt")?.focus();
}

begin();
