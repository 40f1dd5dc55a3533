// The form: pictures, prompt, size, settings, and the one button.
import { html, useLayoutEffect, useRef } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { startMany } from "./jobs.js";
import { Choices, NumberField } from "./parts.js";
import { isShown, urlOf } from "./pictures.js";
import { fitSize, shapesOf } from "./recipe.js";
import { Settings } from "./settings.js";
import * as store from "./state.js";
import { t } from "./words.js";

const { state, set, setDraft } = store;
const SHORTCUT = navigator.platform.startsWith("Mac") ? "⌘ ↵" : "Ctrl ↵";
const COUNTS = [1, 2, 4, 8];
const SIGNS = { generate: "pen", edit: "image", inpaint: "brush", variation: "vary" };

// "Generate" of "askGenerate", as the mode is.
const worded = (prefix, mode) => prefix + mode[0].toUpperCase() + mode.slice(1);

export async function submitForm() {
  // A number that is still being typed counts too.
  const field = document.activeElement;
  if (field?.matches("input")) {
    field.blur();
    field.focus();
  }
  // A picture that was just added is still being read.
  await store.whenAdded();
  const why = store.problem();
  if (why) {
    store.notify(why);
    return document.getElementById("prompt").focus();
  }
  set({ optionsOpen: false });
  return startMany(store.recipeNow(), state.inputs, state.mask, state.draft.count);
}

function Input({ input, index }) {
  const { inputs, mask } = state;
  const mine = index === 0 && mask;
  return html`<li class="input">
    ${isShown(input)
      ? html`<img src=${urlOf(input.blob)} alt=${t("inputNumber", index + 1)} />`
      : html`<span class="unshown" title=${input.name}><${Icon} name="image" /><span>${input.name}</span></span>`}
    ${mine && html`<i class="veil" style=${{ "--mask": `url(${urlOf(mask.blob)})` }}></i>`}
    ${inputs.length > 1 && html`<button type="button" class="order" disabled=${index === 0}
      aria-label=${t("putFirst", index + 1)} title=${t("putFirst", index + 1)}
      onClick=${() => store.putFirst(input)}><i>${index + 1}</i></button>`}
    <button type="button" class="remove" aria-label=${t("removeInput", index + 1)}
      onClick=${() => store.removeInput(input)}><i><${Icon} name="close" size=${14} /></i></button></li>`;
}

function Inputs({ choose }) {
  const { inputs, mask } = state;
  if (!inputs.length) return null;
  const most = store.mostInputs();
  const canPaint = isShown(inputs[0]) && inputs.length <= store.modelNow()?.tasks.inpaint?.max_input_images;
  const label = t(most > 1 ? "addPicture" : "replacePicture");
  return html`<ul class="inputs">
    ${inputs.map((input, index) => html`<${Input} key=${urlOf(input.blob)} input=${input} index=${index} />`)}
    ${(most === 1 || inputs.length < most) && html`<li><button type="button" class="button more-input"
      aria-label=${label} title=${label} onClick=${choose}>
      <${Icon} name=${most > 1 ? "add" : "image"} /></button></li>`}
    ${(mask || canPaint) && html`<li><button type="button" class="button framed"
      onClick=${() => set({ dialog: "mask" })}>
      <${Icon} name="brush" />${t(mask ? "changeMask" : "paintMask")}</button></li>`}</ul>`;
}

function Shape({ ratio }) {
  const [width, height] = ratio > 1 ? [18, 18 / ratio] : [18 * ratio, 18];
  return html`<svg width="20" height="20" aria-hidden="true"><rect x=${10 - width / 2} y=${10 - height / 2}
    width=${width} height=${height} rx="2" fill="none" stroke="currentColor" stroke-width="1.5" /></svg>`;
}

function Size() {
  const { sizes } = store.modelNow();
  const free = state.inputs.length > 0;
  const size = state.draft.size || (free ? null : sizes.default);
  const options = shapesOf(sizes).map((shape) => ({
    key: shape.size.join("x"),
    label: shape.label,
    picture: html`<${Shape} ratio=${shape.ratio} />`,
  }));
  if (free) options.unshift({ key: "input", label: t("asInput") });
  const choose = (key) => setDraft({ size: key === "input" ? null : key.split("x").map(Number) });
  const side = (index) => (value) => {
    const next = [...(size || sizes.default)];
    next[index] = value ?? sizes.default[index];
    setDraft({ size: fitSize(...next, sizes) });
  };
  return html`<${Choices} name="size" legend=${t("size")} options=${options}
      value=${size ? size.join("x") : "input"} onChoose=${choose}>
    ${size && html`<div class="sides">
      <${NumberField} name="width" label=${t("width")} value=${size[0]} onCommit=${side(0)} />
      <button type="button" class="button square" aria-label=${t("swap")} title=${t("swap")}
        onClick=${() => setDraft({ size: [size[1], size[0]] })}><${Icon} name="swap" /></button>
      <${NumberField} name="height" label=${t("height")} value=${size[1]} onCommit=${side(1)} />
    </div>`}<//>`;
}

function Prompt({ mode }) {
  const box = useRef();
  const { prompt } = state.draft;
  useLayoutEffect(() => {
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(box.current.scrollHeight + 2, innerHeight * 0.3)}px`;
  }, [prompt]);
  const ask = t(worded("ask", mode));
  return html`<label class="unseen" for="prompt">${ask}</label>
    <textarea id="prompt" ref=${box} rows="2" placeholder=${ask} value=${prompt} aria-describedby="does"
      onInput=${(event) => setDraft({ prompt: event.target.value })}></textarea>
    <p id="does" class="does"><${Icon} name=${SIGNS[mode]} size=${16} />
      <span>${t(worded("does", mode), state.inputs.length)}</span></p>`;
}

export function Composer() {
  const open = state.optionsOpen;
  const file = useRef();
  const mode = store.modeNow();
  const model = store.modelNow();
  const why = store.problem();
  const size = state.draft.size || (state.inputs.length ? null : model?.sizes.default);
  const sizeText = size ? size.join(" × ") : t("asInput");
  const chosen = (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    store.addFiles(files);
  };
  const submit = (event) => {
    event.preventDefault();
    submitForm();
  };
  return html`<form class="composer" aria-label=${t("form")} onSubmit=${submit}>
    <${Inputs} choose=${() => file.current.click()} />
    <${Prompt} mode=${mode} />
    <div class="options ${open ? "open" : ""}" id="options">${model && html`
      <${Size} />
      <${Choices} name="count" legend=${t("pictures")} value=${state.draft.count}
        options=${COUNTS.map((count) => ({ key: count, label: count }))}
        onChoose=${(count) => setDraft({ count })} />
      <${Settings} />`}</div>
    <div class="bar">
      <input ref=${file} type="file" accept="image/*" multiple hidden onChange=${chosen} />
      <button type="button" class="button framed add" title=${t("addPicture")} aria-label=${t("addPicture")}
        onClick=${() => file.current.click()}><${Icon} name="image" /><span>${t("addPicture")}</span></button>
      <button type="button" class="button framed toggle" aria-expanded=${open} aria-controls="options"
        aria-label="${t("options")}: ${sizeText}" onClick=${() => set({ optionsOpen: !open })}>
        <${Icon} name="sliders" /><span>${sizeText}</span></button>
      <button class="button main" aria-disabled=${Boolean(why)} title=${why || null}>
        ${t(mode)}<kbd aria-hidden="true">${SHORTCUT}</kbd></button>
    </div></form>`;
}
