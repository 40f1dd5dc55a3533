// What the page shows: one state, and the form's part of what changes it.
import { readRecipe } from "./file_recipe.js";
import * as storage from "./storage.js";
import { hashOf, isShown, measure } from "./pictures.js";
import { randomSeed } from "./recipe.js";
import { t } from "./words.js";

const EMPTY_DRAFT = {
  prompt: "", model: "", size: null, count: 1, seed: null, steps: null,
  guidance: null, negative: "", format: "png", loras: [],
};
const UNDER_WAY = ["local", "sending", "loading", "queued", "running", "fetching"];

export const state = {
  capabilities: null,
  status: { status: "starting" },
  jobs: [],
  selected: null,
  inputs: [],
  mask: null,
  draft: { ...EMPTY_DRAFT, ...storage.recall("draft") },
  // Where there is no room for the options beside the picture, they are folded away.
  optionsOpen: false,
  dialog: null,
  notice: null,
  restored: 0,
  // How many more inputs the recipe of a file has asked for: what comes is one of them,
  // whatever it carries.
  awaited: 0,
  // What screen readers are to say, which may be the same again.
  spoken: { text: "", count: 0 },
  // The key that the server has refused last.
  refusedKey: null,
};

let redraw = () => {};
let due = false;

export const onChange = (callback) => {
  redraw = callback;
};

export function set(patch) {
  Object.assign(state, patch);
  if (due) return;
  due = true;
  queueMicrotask(() => {
    due = false;
    redraw();
  });
}

export function setDraft(patch) {
  set({ draft: { ...state.draft, ...patch } });
  storage.remember("draft", state.draft);
}

export const notify = (text, label, act) => set({ notice: { text, label, act } });
export const isLive = (job) => UNDER_WAY.includes(job.state);
export const selectedJob = () => state.jobs.find((job) => job.id === state.selected);

// What a picture is called: the words that it was asked for with, else what was done.
export const titleOf = ({ recipe, origin }) =>
  recipe.prompt || origin?.recipe.prompt || t(recipe.mode === "upscale" ? "enlarged" : "aVariation");

// How much of the model is loaded, in words; null where the server does not say.
export function loadedPart() {
  const { progress } = state.status;
  return progress && `${Math.round((100 * progress.done) / progress.total)} %`;
}

export function modelNow(name = state.draft.model) {
  const models = state.capabilities?.models || [];
  const wanted = [name, state.capabilities?.default_model];
  return wanted.map((id) => models.find((model) => model.id === id)).find(Boolean);
}

// What will run follows from what is there; nobody has to choose it.
export function modeNow() {
  if (!state.inputs.length) return "generate";
  if (state.mask) return "inpaint";
  return state.draft.prompt.trim() || state.inputs.length > 1 ? "edit" : "variation";
}

export const taskNow = () => modelNow()?.tasks[modeNow()] || {};
export const mostInputs = () => modelNow()?.tasks.edit?.max_input_images ?? 0;
export const lorasNow = () =>
  (state.capabilities?.loras || []).filter(({ model }) => !model || model === modelNow()?.id);

// Why nothing can be asked for as the form is, or "".
export function problem() {
  const { capabilities, draft } = state;
  if (state.status.status === "offline") return t("offline");
  if (!capabilities) return t("starting");
  if (!capabilities.limits.keeps_results) return t("keepsNothing");
  const mode = modeNow();
  const task = modelNow().tasks[mode];
  if (!task) return t("noTask");
  if (state.inputs.length > task.max_input_images && mode !== "generate") {
    return t(mode === "inpaint" ? "maskTooMany" : "tooManyInputs", task.max_input_images);
  }
  if (draft.prompt.trim()) return "";
  if (mode === "variation") return "";
  return t({ generate: "needPrompt", edit: "needChange", inpaint: "needMaskPrompt" }[mode]);
}

export function recipeNow() {
  const { draft } = state;
  const [mode, task, model] = [modeNow(), taskNow(), modelNow()];
  const known = new Set(lorasNow().map(({ id }) => id));
  return {
    mode,
    model: model.id,
    prompt: draft.prompt.trim(),
    size: draft.size || (mode === "generate" ? model.sizes.default : null),
    seed: draft.seed ?? randomSeed(),
    steps: draft.steps,
    guidance: task.guidance_scale == null ? null : draft.guidance,
    negative: task.negative_prompt ? draft.negative.trim() : "",
    format: draft.format,
    loras: draft.loras.filter(({ name }) => known.has(name)),
  };
}

export function setInputs(inputs, mask = null) {
  set({ inputs, mask });
  storage.keepInputs({ inputs, mask }).catch(() => {});
}

export function removeInput(input) {
  const left = state.inputs.filter((other) => other !== input);
  setInputs(left, left[0] === state.inputs[0] ? state.mask : null);
}

export function putFirst(input) {
  setInputs([input, ...state.inputs.filter((other) => other !== input)]);
}

// Files are read one call after another: their order is what an edit goes by.
let adding = Promise.resolve();

function inTurn(work) {
  const done = adding.then(work);
  adding = done.catch(() => {});
  return done;
}

// Resolves once what was added is there.
export const whenAdded = () => adding;
export const addFiles = (files) => inTurn(() => takeFiles(files));
const addAsInput = (file) => inTurn(() => addInputs([file]));

async function takeFiles(files) {
  if (state.awaited) {
    set({ awaited: Math.max(0, state.awaited - files.length) });
    return addInputs([...files]);
  }
  const [fresh, said] = [[], []];
  for (const file of files) {
    if (isTooLarge(file)) {
      said.push(t("tooLarge", file.name));
      continue;
    }
    const known = await hashOf(file).then(storage.pictureOf).catch(() => null);
    if (known) {
      await restore(known);
      notify(t("madeHere"), t("useInstead"), () => addAsInput(file));
    } else if (!(await restoreFrom(file, said))) {
      fresh.push(file);
    }
  }
  if (fresh.length || said.length) await addInputs(fresh, said);
  return undefined;
}

// To be sent, and so to be read: a film takes seconds in which the page stands still.
const isTooLarge = ({ size }) => size > (state.capabilities?.limits.max_upload_bytes ?? Infinity);

// Whether `file` has brought settings back; what it does not tell, or names and is not here,
// is said, and in `notes` what it is where it becomes an input.
async function restoreFrom(file, notes) {
  const told = await readRecipe(file).catch(() => null);
  if (!told) return false;
  const { recipe, prompts, inputs, pictures, strength, seedIsLarge } = told;
  if (recipe.mode === "upscale") {
    // The form makes no picture larger: the original is what has settings for it.
    notes.push(t("originalWanted", pictures.map(short).join(", ")));
    return false;
  }
  await restore({ recipe });
  // Before the server has told what it has, nothing is known to be missing.
  const isHere = !state.capabilities || state.capabilities.models.some(({ id }) => id === recipe.model);
  const known = new Set(lorasNow().map(({ id }) => id));
  const strange = recipe.loras.map(({ name }) => name).filter((name) => state.capabilities && !known.has(name));
  const said = [t("recipeFound")];
  if (!isHere) said.push(t("noModelHere", recipe.model));
  if (strange.length) said.push(t("noLoraHere", strange.join(", ")));
  if (strength != null) said.push(t("noStrength", strength));
  if (seedIsLarge) said.push(t("largeSeed"));
  if (prompts.length) said.push(t("promptWanted", prompts.map(short).join(", ")));
  if (pictures.length) said.push(t("picturesWanted", pictures.map(short).join(", ")));
  set({ awaited: inputs.length });
  notify(said.join(t("gap")), t("useInstead"), () => {
    set({ awaited: 0 });
    addAsInput(file);
  });
  return true;
}

const short = (hash) => hash.slice(0, 12);

// Whatever does not become an input as expected is said, in one notice.
async function addInputs(files, said = []) {
  const found = [];
  for (const file of files) {
    try {
      const input = await measure(file);
      found.push(input);
      if (!isShown(input)) said.push(t("unseenPicture", file.name));
    } catch {
      said.push(t(file.type.startsWith("image/") ? "brokenPicture" : "notAPicture", file.name));
    }
  }
  const { inputs, mask } = state;
  const most = state.capabilities ? mostInputs() || 1 : Infinity;
  if (most === 1) takeOne(found, said);
  else if (found.length) {
    const all = [...inputs, ...found];
    if (all.length > most) said.push(t("tooManyInputs", most));
    setInputs(all.slice(0, most), mask);
  }
  const isReplaced = most === 1 && found.length && inputs.length;
  if (isReplaced) notify(said.join(t("gap")), t("undo"), () => setInputs(inputs, mask));
  else if (said.length) notify(said.join(t("gap")));
}

function takeOne([first, ...more], said) {
  if (!first) return;
  if (more.length) said.push(t("onlyFirst", first.name));
  if (state.inputs.length) said.push(t("replaced"));
  setInputs([first]);
}

// The form as it was when `job`, or the picture that it makes larger, was asked for.
export async function restore(job) {
  const { inputs = [], mask = null, recipe: { mode, ...recipe } } = job.origin || job;
  const usual = modelNow(recipe.model)?.sizes.default;
  // Beside inputs null is the first one's size.
  const size = mode === "generate" && String(recipe.size) === String(usual) ? null : recipe.size;
  setDraft({ ...EMPTY_DRAFT, ...recipe, size });
  setInputs(inputs, mask);
  set({ restored: state.restored + 1, awaited: 0 });
  notify(t("restored"));
}

export async function openStore() {
  const kept = await storage.keptInputs().catch(() => null);
  if (kept?.inputs?.length) set(kept);
}
