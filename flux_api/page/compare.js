// A sheet of pictures over two settings, drawn as ordinary pictures.
import { html, useState } from "./vendor/htm-preact.js";
import { find, start, stop } from "./jobs.js";
import { Dialog, closeDialog } from "./parts.js";
import { download, makeCanvas, toFile, urlOf } from "./pictures.js";
import { narrow } from "./recipe.js";
import { isLive, problem, recipeNow, set, state, taskNow } from "./state.js";
import { t } from "./words.js";

const MOST = 36;
const CELL = 384;
const GAP = 10;
const HEAD = 40;

// Kept while the page is open: the sheet is there again when the dialog is.
let kept = { across: "seed", acrossValues: "1, 2, 3", down: "none", downValues: "", sheet: null };

const numbersIn = (text) =>
  narrow(text).split(/[\s,、]+/).filter(Boolean).map(Number).filter(Number.isFinite);

function axesNow() {
  const task = taskNow();
  const loras = state.draft.loras.map(({ name }) => `lora ${name}`);
  return ["seed", "steps", ...(task.guidance_scale == null ? [] : ["guidance"]), ...loras];
}

const axisName = (axis) => (axis.startsWith("lora ") ? axis.slice(5) : t(axis));

function withValue(recipe, axis, value) {
  if (!axis.startsWith("lora ")) return { ...recipe, [axis]: value };
  const loras = recipe.loras.map((lora) =>
    (lora.name === axis.slice(5) ? { ...lora, weight: value } : lora));
  return { ...recipe, loras };
}

const EXAMPLES = { seed: "1, 2, 3", steps: "4, 8, 12", guidance: "1, 2.5, 4" };

function Axis({ label, axis, values, options, onAxis, onValues }) {
  return html`<div class="axis">
    <label class="field">${label}<select value=${axis} onChange=${(event) => onAxis(event.target.value)}>
      ${options.map((one) => html`<option value=${one} selected=${one === axis}>
        ${one === "none" ? t("nothing") : axisName(one)}</option>`)}</select></label>
    <label class="field">${t("values")}<input type="text" inputmode="decimal" value=${values}
      disabled=${axis === "none"} onInput=${(event) => onValues(event.target.value)} /></label></div>`;
}

function Cell({ id, name }) {
  const job = find(id);
  const picture = job?.small || job?.preview;
  const choose = () => {
    if (!job) return;
    closeDialog();
    set({ selected: id });
  };
  return html`<td><button class="cell ${job?.state || "lost"}" aria-label=${name}
    onClick=${choose}>
    ${picture ? html`<img src=${urlOf(picture)} alt="" />` : html`<span class="sheen"></span>`}</button></td>`;
}

function Sheet({ sheet }) {
  const { across, down, columns, rows, ids } = sheet;
  const heading = (axis, value) => (value == null ? "" : `${axisName(axis)} ${value}`);
  return html`<div class="sheet-scroll" tabindex="0" role="region" aria-label=${t("compare")}><table>
    <thead><tr>${rows[0] != null && html`<td></td>`}
      ${columns.map((value) => html`<th scope="col">${heading(across, value)}</th>`)}</tr></thead>
    <tbody>${rows.map((row, at) => html`<tr>
      ${row != null && html`<th scope="row">${heading(down, row)}</th>`}
      ${columns.map((column, index) => html`<${Cell} id=${ids[at * columns.length + index]}
        name=${`${heading(across, column)} ${heading(down, row)}`.trim()} />`)}</tr>`)}</tbody></table></div>`;
}

async function drawSheet({ across, down, columns, rows, ids }) {
  const pictures = await Promise.all(ids.map(async (id) => {
    const blob = find(id)?.blob;
    return blob ? createImageBitmap(blob) : null;
  }));
  const first = pictures.find(Boolean);
  const scale = Math.min(1, CELL / Math.max(first.width, first.height));
  const [width, height] = [first.width * scale, first.height * scale];
  const left = rows[0] == null ? GAP : 160;
  const canvas = makeCanvas(left + columns.length * (width + GAP), HEAD + rows.length * (height + GAP));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = "#1b1b1a";
  pen.font = `16px ${getComputedStyle(document.body).fontFamily}`;
  columns.forEach((value, column) => {
    pen.fillText(`${axisName(across)} ${value}`, left + column * (width + GAP), 26, width);
  });
  rows.forEach((value, row) => {
    const top = HEAD + row * (height + GAP);
    if (value != null) pen.fillText(`${axisName(down)} ${value}`, GAP, top + height / 2, left - 2 * GAP);
    columns.forEach((_, column) => {
      const picture = pictures[row * columns.length + column];
      if (picture) pen.drawImage(picture, left + column * (width + GAP), top, width, height);
    });
  });
  return toFile(canvas);
}

export function CompareDialog() {
  const [form, setForm] = useState(kept);
  const change = (patch) => {
    kept = { ...kept, ...patch };
    setForm(kept);
  };
  const axes = axesNow();
  const across = axes.includes(form.across) ? form.across : "seed";
  const down = axes.includes(form.down) && form.down !== across ? form.down : "none";
  const columns = numbersIn(form.acrossValues);
  const rows = down === "none" ? [null] : numbersIn(form.downValues);
  const count = columns.length * rows.length;
  const why = problem() || (count > MOST ? t("tooManyCells", MOST) : "");
  const jobs = (form.sheet?.ids || []).map(find).filter(Boolean);
  const draw = () => {
    const base = recipeNow();
    const recipes = rows.flatMap((row) => columns.map((column) => {
      const recipe = withValue(base, across, column);
      return row == null ? recipe : withValue(recipe, down, row);
    }));
    const ids = recipes.map((recipe) => start(recipe, state.inputs, state.mask, { select: false }));
    change({ sheet: { across, down, columns, rows, ids } });
  };
  // The last first: each that stops makes room for one that waits.
  const stopAll = () => jobs.filter(isLive).reverse().forEach(stop);
  const save = async () => download(await drawSheet(form.sheet), "compare");
  const choose = (axis, values) => (value) =>
    change({ [axis]: value, [values]: EXAMPLES[value] || "0, 0.5, 1" });
  return html`<${Dialog} kind="compare" title=${t("compare")}>
    <p class="note">${t("compareText")}</p>
    <div class="axes">
      <${Axis} label=${t("across")} axis=${across} values=${form.acrossValues} options=${axes}
        onAxis=${choose("across", "acrossValues")}
        onValues=${(acrossValues) => change({ acrossValues })} />
      <${Axis} label=${t("downwards")} axis=${down} values=${form.downValues}
        options=${["none", ...axes.filter((axis) => axis !== across)]}
        onAxis=${choose("down", "downValues")} onValues=${(downValues) => change({ downValues })} />
      <button class="button main" disabled=${Boolean(why) || !count} onClick=${draw}>${t("draw", count)}</button></div>
    ${why && html`<p class="note" role="status">${why}</p>`}
    ${jobs.length > 0 && html`<${Sheet} sheet=${form.sheet} />
      <div class="row">${jobs.some(isLive)
        ? html`<button class="button framed stop" onClick=${stopAll}>${t("stop")}</button>`
        : jobs.some(({ blob }) => blob) && html`<button class="button framed" onClick=${save}>${t("sheet")}</button>`}</div>`}<//>`;
}
