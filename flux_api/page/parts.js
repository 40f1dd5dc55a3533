// What several parts of the page are made of.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { narrow } from "./recipe.js";
import { set, state } from "./state.js";
import { t } from "./words.js";

const NOTICE_MS = 9000;
const MARGIN = 8;

// Closed first, it gives the focus back to where it was.
export function closeDialog() {
  document.querySelector("dialog[open]")?.close();
  set({ dialog: null });
}

// Office programs put a picture of what is copied beside its text: in a field the text is
// meant. Beside a file there is its name as text, but nothing written in HTML.
export const pastedFiles = ({ target, clipboardData: { types, files } }) =>
  target.matches("textarea, input") && types.includes("text/plain") && types.includes("text/html")
    ? []
    : [...files];

// What is dropped or pasted on a dialog is for `onFiles`, never for the form behind it.
export function Dialog({ title, kind = "", onFiles, children }) {
  const element = useRef();
  // Before what is in it measures itself.
  useLayoutEffect(() => {
    element.current.showModal();
  }, []);
  // By Escape. What another has replaced closes nothing any more.
  const closed = ({ target }) => target.isConnected && closeDialog();
  const outside = (event) => event.target === element.current && !kind.includes("whole") && closeDialog();
  const take = (event) => {
    event.stopPropagation();
    const files = event.clipboardData ? pastedFiles(event) : [...event.dataTransfer.files];
    if (!files.length) return;
    event.preventDefault();
    onFiles?.(files);
  };
  return html`<dialog ref=${element} class=${kind} aria-labelledby="dialog-title"
      onClose=${closed} onMouseDown=${outside} onDrop=${take} onPaste=${take}>
    <div class="sheet">
      <header><h2 id="dialog-title">${title}</h2>
        <button class="button square quiet" aria-label=${t("close")} onClick=${closeDialog}>
          <${Icon} name="close" /></button></header>
      ${children}
    </div><${Notice} /></dialog>`;
}

// Above a dialog it has to be in it.
export function Notice() {
  const { notice } = state;
  useEffect(() => {
    if (!notice) return undefined;
    const timer = setTimeout(() => set({ notice: null }), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [notice]);
  const act = () => {
    if (state.notice !== notice) return;
    set({ notice: null });
    notice.act();
  };
  return html`<div class="notice-place" role="status">${notice && html`<div class="notice">
    <span>${notice.text}</span>
    ${notice.label && html`<button class="button" onClick=${act}>${notice.label}</button>`}
    <button class="button square" aria-label=${t("close")} onClick=${() => set({ notice: null })}>
      <${Icon} name="close" /></button></div>`}</div>`;
}

// Above the button, as near as the window has room: the stage would cut off what is in it.
function placeBy(button, list) {
  const at = button.getBoundingClientRect();
  const left = Math.min(at.right, innerWidth - MARGIN) - list.offsetWidth;
  const top = at.top - MARGIN - list.offsetHeight;
  Object.assign(list.style, { left: `${Math.max(MARGIN, left)}px`, top: `${Math.max(MARGIN, top)}px` });
}

// A button with a list of more: closed by a choice, Escape, or a press elsewhere.
export function Menu({ icon, name, children }) {
  const [open, setOpen] = useState(false);
  const place = useRef();
  // A key may come as soon as it is seen.
  useLayoutEffect(() => {
    if (!open) return undefined;
    placeBy(place.current, place.current.querySelector(".menu-list"));
    place.current.querySelector(".menu-list button").focus();
    const press = (event) => !place.current.contains(event.target) && setOpen(false);
    const escape = (event) => {
      if (event.key !== "Escape") return;
      setOpen(false);
      place.current.querySelector("button").focus();
    };
    addEventListener("pointerdown", press);
    addEventListener("keydown", escape);
    return () => {
      removeEventListener("pointerdown", press);
      removeEventListener("keydown", escape);
    };
  }, [open]);
  return html`<div class="menu" ref=${place}>
    <button class="button" aria-expanded=${open} onClick=${() => setOpen((was) => !was)}>
      <${Icon} name=${icon} /><span>${name}</span></button>
    ${open && html`<div class="menu-list" onClick=${() => setOpen(false)}>${children}</div>`}</div>`;
}

// One of several, as real radio buttons under the paint.
export function Choices({ name, legend, options, value, onChoose, children }) {
  return html`<fieldset class="choices ${name}"><legend>${legend}</legend>
    <div>${options.map(({ key, label, picture }) => html`<label key=${key}>
      <input type="radio" name=${name} checked=${key === value} onChange=${() => onChoose(key)} />
      <span>${picture}${label}</span></label>`)}</div>
    ${children}</fieldset>`;
}

// A number that keeps what is being typed until it is left, whatever is drawn meanwhile.
export function NumberField({ label, name, value, hint, onCommit, button, hidden = false }) {
  const [typed, setTyped] = useState(null);
  // Set from elsewhere: what was being typed is no longer meant.
  // Before the field is painted: a person or a script may type as soon as it is there.
  useLayoutEffect(() => setTyped(null), [value, state.restored]);
  const commit = (event) => {
    const text = narrow(event.target.value).trim();
    const number = Number(text.replace(",", "."));
    setTyped(null);
    onCommit(text === "" || Number.isNaN(number) ? null : number);
  };
  return html`<div class="field"><label for=${`field-${name}`} class=${hidden ? "unseen" : null}>${label}</label>
    <span class="beside"><input type="text" inputmode="decimal" id=${`field-${name}`} placeholder=${hint}
      autocomplete="off" value=${typed ?? value ?? ""} onInput=${(event) => setTyped(event.target.value)}
      onChange=${commit} onBlur=${() => setTyped(null)} />${button}</span></div>`;
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain http beyond localhost has no clipboard of its own.
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
