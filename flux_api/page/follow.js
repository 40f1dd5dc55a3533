// One event stream for all jobs of this page: a browser opens six connections to a server.
import { call, endIfSilent, events, getJson } from "./api.js";

const MOST = 100;
const REPLAY_MS = 250;

const watched = new Set();
let control = null;
let timer = 0;
let openedAt = 0;
let tell = () => {};

export const onEvent = (callback) => {
  tell = callback;
};

export function watch(id) {
  watched.add(id);
  soon(30);
}

export function unwatch(id) {
  watched.delete(id);
  if (!watched.size) control?.abort();
}

// A stream begins with what has happened so far: its steps say nothing of the pace.
export const isReplay = () => performance.now() - openedAt < REPLAY_MS;

function soon(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(open, milliseconds);
}

// Where too many watch already: how the jobs are doing, as if it had just happened.
async function look(ids) {
  const { data } = await getJson(`v1/jobs?ids=${ids}`);
  for (const { id, state, ...more } of data) {
    const type = state === "running" ? (more.step ? "step" : "started") : state;
    tell({ ...more, type, job_id: id });
  }
  const known = new Set(data.map(({ id }) => id));
  for (const id of ids.split(",").filter((one) => !known.has(one))) {
    tell({ type: "failed", job_id: id, error: { code: "job_not_found" } });
  }
}

async function open() {
  control?.abort();
  if (!watched.size) return;
  const own = new AbortController();
  control = own;
  let pause = 100;
  const silence = endIfSilent(own);
  const ids = [...watched].slice(0, MOST).join(",");
  try {
    const answer = await call(`v1/jobs/events?ids=${ids}`, { signal: own.signal });
    openedAt = performance.now();
    for await (const event of events(answer, silence.onLife)) {
      if (own.signal.aborted) return;
      tell(event);
    }
  } catch (error) {
    if (control !== own) return;
    pause = 1000 * Math.min(2, error.retryAfter || 1);
    if (error.code === "too_many_watchers") await look(ids).catch(() => {});
    if (error.status === 401) tell({ type: "refused" });
  } finally {
    silence.end();
  }
  // Some may still be watched: it broke off, or there were too many for one stream.
  if (control === own && watched.size) soon(pause);
}
