// Pictures on their way: asked for without holding a connection, followed, fetched by id,
// kept. Nothing is lost when the page is closed meanwhile.
import { ApiError, call, getFile, getJson, key, newJobId, timeLimit } from "./api.js";
import * as follow from "./follow.js";
import * as storage from "./storage.js";
import { makePace } from "./pace.js";
import { fromBase64, hashOf, letGo, thumbnail } from "./pictures.js";
import { bodyOf, randomSeed, requestOf } from "./recipe.js";
import { isLive, modelNow, notify, set, state } from "./state.js";
import { t } from "./words.js";

// Of this page at once on the server: others wait there too.
const MOST_AT_ONCE = 8;
const PREVIEWS = 3;
const TRIES = 4;
const LONGEST_PAUSE_MS = 4000;
const STORY_MS = 20_000;
// For what is asked for in words alone: pictures take as long as they take.
const ACCEPT_MS = 60_000;
// By then what took a preview's place is on the screen.
const FADE_MS = 2000;
const WAITS = ["model_loading", "rate_limit_exceeded", "concurrency_limit_exceeded", "server_is_overloaded"];
// Another worker answers than the one that drew, or it was too long ago.
const GONE = ["job_not_found", "result_expired"];

const paces = new Map();
const timers = new Map();
// Of what is pending in this browser, which every tab of it sees.
const stored = new Set();
let latest = 0;

export const find = (id) => state.jobs.find((job) => job.id === id);

function change(id, patch) {
  const { preview } = find(id);
  if (preview && "preview" in patch) setTimeout(() => letGo(preview), FADE_MS);
  set({ jobs: state.jobs.map((job) => (job.id === id ? { ...job, ...patch } : job)) });
}

// Changes a job only while it is under way: what comes late changes nothing.
function advance(id, patch) {
  const job = find(id);
  if (job && isLive(job)) change(id, patch);
}

function sizeOf({ model, size, scale = 1 }, [first]) {
  if (size) return size;
  if (!first?.width) return modelNow(model)?.sizes.default || [1, 1];
  return [first.width * scale, first.height * scale];
}

// `origin` is the picture that is made larger: its words and settings stay those of the new one.
export function start(recipe, inputs = [], mask = null, { select = true, origin = null } = {}) {
  latest = Math.max(latest + 1, Date.now());
  const size = sizeOf(recipe, inputs);
  const job = { id: newJobId(), recipe, inputs, mask, origin, size, created: latest, state: "local" };
  set({ jobs: [job, ...state.jobs], ...(select ? { selected: job.id } : {}) });
  keepPending(job);
  pump();
  return job.id;
}

export function startMany(recipe, inputs, mask, count) {
  // The newest is first in the strip: the lowest seed is to stand there.
  const seeds = Array.from({ length: count }, (_, index) => recipe.seed + index);
  for (const seed of seeds.reverse()) start({ ...recipe, seed }, inputs, mask);
}

export const again = (job, patch) =>
  start({ ...job.recipe, ...patch }, job.inputs, job.mask, { origin: job.origin });

function keepPending({ id, recipe, inputs, mask, origin, size, created, sent }) {
  const job = { id, recipe, inputs, mask, origin, size, created, sent };
  storage.keepPending(job).then(() => stored.add(id)).catch(() => {});
}

function pump() {
  const there = state.jobs.filter((job) => isLive(job) && job.state !== "local").length;
  const waiting = state.jobs.filter((job) => job.state === "local");
  waiting.sort((one, other) => one.created - other.created);
  for (const job of waiting.slice(0, Math.max(0, MOST_AT_ONCE - there))) submit(job);
}

// Whether another tab has sent, finished or stopped it meanwhile: two tabs send what waits
// in both.
async function isTakenElsewhere(job) {
  if (!stored.has(job.id)) return false;
  const pending = await storage.pendingOf(job.id).catch(() => job);
  if (pending?.sent) taken(job);
  if (pending) return pending.sent;
  const picture = await storage.pictureBy(job.id).catch(() => null);
  // Stopped meanwhile, in this one.
  if (!isLive(find(job.id) || {})) return true;
  if (picture) advance(job.id, { ...picture, state: "done" });
  else remove(find(job.id));
  pump();
  return true;
}

async function submit(job) {
  advance(job.id, { state: "sending" });
  try {
    if (await isTakenElsewhere(job)) return;
    const { path, fields } = requestOf(job.recipe);
    const { body, headers } = bodyOf({ ...fields, partial_images: PREVIEWS }, job.inputs, job.mask);
    const extra = { Prefer: "respond-async", "X-Job-Id": job.id };
    const signal = job.inputs.length ? null : timeLimit(ACCEPT_MS);
    await call(path, { method: "POST", body, headers: { ...headers, ...extra }, signal });
    taken(job);
  } catch (error) {
    if (error.code === "job_id_in_use") return taken(job);
    if (!WAITS.includes(error.code)) return fail(job.id, error);
    advance(job.id, { state: error.code === "model_loading" ? "loading" : "queued", position: null });
    timers.set(job.id, setTimeout(() => tryAgain(job), 1000 * Math.min(10, error.retryAfter || 3)));
  }
}

function tryAgain(job) {
  clearTimeout(timers.get(job.id));
  if (find(job.id) && isLive(find(job.id))) submit(job);
}

function taken(job) {
  const now = find(job.id);
  // Stopped while it was being sent.
  if (!now || !isLive(now)) return cancel(job.id);
  advance(job.id, { state: "queued", sent: true });
  keepPending({ ...job, sent: true });
  follow.watch(job.id);
}

follow.onEvent((event) => {
  const { job_id: id, type } = event;
  if (type === "queued") advance(id, { state: "queued", position: event.position });
  if (type === "started") advance(id, { state: "running" });
  if (type === "step") {
    if (!paces.has(id)) paces.set(id, makePace());
    const left = paces.get(id)(event.step, event.steps, follow.isReplay());
    advance(id, { state: "running", step: event.step, steps: event.steps, left });
  }
  if (type === "partial_image") {
    advance(id, { preview: fromBase64(event.b64_json, event.media_type) });
  }
  if (type === "refused") askOnce();
  if (type === "done") collect(id, event.urls?.[0]);
  if (type === "cancelled") end(id, { state: "stopped" });
  if (type === "failed" && GONE.includes(event.error.code)) end(id, { state: "lost" });
  else if (type === "failed") fail(id, new ApiError(-1, event.error));
});

async function collect(id, url) {
  const job = find(id);
  if (!job || !isLive(job) || job.state === "fetching") return;
  advance(id, { state: "fetching" });
  // A stream tells of its end again, and would have it fetched again.
  follow.unwatch(id);
  for (let attempt = 1; isLive(find(id) || {}); attempt++) {
    try {
      const story = await getJson(`v1/jobs/${id}`, { signal: timeLimit(STORY_MS) });
      const { blob, headers } = await getFile(`v1/jobs/${id}/result`);
      return await keep(job, blob, headers, story, url);
    } catch (error) {
      if (GONE.includes(error.code)) return end(id, { state: "lost" });
      // Where the server is away it may come back, and the picture is still there then.
      const isAway = error.status === 0;
      // And behind another key.
      const isRefused = error.status === 401;
      if (isRefused) askOnce();
      const waits = isAway || isRefused || (error.code === "job_not_done" && attempt < TRIES);
      if (!waits) return fail(id, error);
      const pause = Math.min(LONGEST_PAUSE_MS, 500 * attempt);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return undefined;
}

async function keep(job, blob, headers, story, url) {
  const number = (name) => Number(headers.get(`X-Flux-${name}`));
  const { guidance_scale: guidance, num_inference_steps: steps, run_seconds: seconds } = story;
  const [hash, small] = await Promise.all([hashOf(blob), thumbnail(blob)]);
  const { id, recipe, inputs, mask, origin, created } = job;
  // Stopped meanwhile.
  if (find(id)?.state !== "fetching") return;
  const picture = {
    id, recipe, inputs, mask, origin, created, blob, hash, small, url, steps, guidance, seconds,
    size: [number("Width"), number("Height")],
    warning: headers.get("X-Flux-Warning") || "",
  };
  // Pending until it is kept: where the page is closed in between, it is fetched again.
  const kept = storage.keepPicture(picture).catch(() => notify(t("notKept")));
  end(id, { ...picture, state: "done", preview: null }, t("announceDone"), kept);
}

function end(id, patch, spoken, kept = null) {
  advance(id, { preview: null, ...patch });
  follow.unwatch(id);
  paces.delete(id);
  stored.delete(id);
  Promise.resolve(kept).then(() => storage.dropPending(id)).catch(() => {});
  if (spoken) set({ spoken: { text: spoken, count: state.spoken.count + 1 } });
  pump();
}

function fail(id, error) {
  const told = error instanceof ApiError ? error : new ApiError(-1, { message: String(error) });
  end(id, { state: "failed", error: told }, t("announceFailed"));
  if (told.status === 401) askForKey();
}

// Never over a mask: what is painted there would be lost.
function askForKey() {
  if (state.dialog !== "mask") set({ dialog: "key", refusedKey: key.get() });
}

// For what is under way: once for each key, who closes the dialog does not want to be asked.
function askOnce() {
  if (state.refusedKey !== key.get()) askForKey();
}

const cancel = (id) => call(`v1/jobs/${id}`, { method: "DELETE" }).catch(() => {});

export function stop(job) {
  if (job.sent || job.state === "sending") cancel(job.id);
  clearTimeout(timers.get(job.id));
  end(job.id, { state: "stopped" });
}

export function remove(job) {
  const at = state.jobs.indexOf(job);
  const left = state.jobs.filter((other) => other.id !== job.id);
  const next = left[Math.min(at, left.length - 1)]?.id ?? null;
  set({ jobs: left, selected: state.selected === job.id ? next : state.selected });
  storage.dropPicture(job.id).catch(() => {});
}

export function removeWithUndo(job) {
  remove(job);
  notify(t("deleted"), t("undo"), () => {
    const jobs = [...state.jobs, job].sort((one, other) => other.created - one.created);
    set({ jobs, selected: job.id });
    const { state: _, preview, error, ...picture } = job;
    storage.keepPicture(picture).catch(() => {});
  });
}

// What is shown as gone is gone, also for who reloads the page at once.
export async function removeAll() {
  await storage.dropAllPictures().catch(() => {});
  const left = state.jobs.filter(isLive);
  set({ jobs: left, selected: left.find(({ id }) => id === state.selected)?.id ?? null });
}

// After a new key: what was refused for the old one.
export function retryRefused() {
  if (!key.get()) return;
  // The oldest first, as they were asked for.
  for (const job of state.jobs.filter(({ error }) => error?.status === 401).reverse()) {
    remove(job);
    again(job);
  }
}

const asInput = ({ blob, size: [width, height] }) => ({ blob, width, height });

export function vary(job) {
  const { model, format } = job.recipe;
  const recipe = { mode: "variation", model, prompt: "", size: null, seed: randomSeed(), format };
  start(recipe, [asInput(job)]);
}

export function upscale(job, scale) {
  const { model, format } = job.recipe;
  const { recipe, inputs, mask } = job.origin || job;
  const larger = { mode: "upscale", model, prompt: "", size: null, scale, seed: randomSeed(), format };
  start(larger, [asInput(job)], null, { origin: { recipe, inputs, mask } });
}

export async function openJobs() {
  const pictures = await storage.allPictures().catch(() => []);
  const made = new Set(pictures.map(({ id }) => id));
  const pending = (await storage.allPending().catch(() => [])).filter(({ id }) => !made.has(id));
  const jobs = [
    ...pictures.map((picture) => ({ ...picture, state: "done" })),
    ...pending.map((job) => ({ ...job, state: job.sent ? "queued" : "local" })),
  ];
  jobs.sort((one, other) => other.created - one.created);
  pending.forEach(({ id }) => stored.add(id));
  set({ jobs, selected: pending.length ? jobs.find(isLive).id : null });
  for (const job of jobs.filter(({ sent, state: now }) => sent && now === "queued")) follow.watch(job.id);
}

// The server takes requests: what waits for its model need not wait any longer, and what
// was not sent before the page was closed is sent now.
export function resume() {
  state.jobs.filter((job) => job.state === "loading").forEach(tryAgain);
  pump();
}
