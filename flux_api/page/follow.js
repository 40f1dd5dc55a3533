// One event stream for all jobs of this page: a browser opens six connections to a server.
import { call, events } from "./api.js";

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

async function open() {
  control?.abort();
  if (!watched.size) return;
  const own = new AbortController();
  control = own;
  let pause = 100;
  try {
    const ids = [...watched].slice(0, MOST).join(",");
    const answer = await call(`v1/jobs/events?ids=${ids}`, { signal: own.signal });
    openedAt = performance.now();
    for await (const event of events(answer)) {
      if (own.signal.aborted) return;
      tell(event);
    }
  } catch (error) {
    if (own.signal.aborted) return;
    pause = 1000 * (error.retryAfter || 1);
  }
  // Some may still be watched: it broke off, or there were too many for one stream.
  if (control === own && watched.size) soon(pause);
}
