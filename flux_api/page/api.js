// The public API over fetch: keys, errors, event streams. Knows nothing of the page.

const KEY = "flux.key";
let held = "";

// For this tab only: a key is not left behind in the browser.
export const key = {
  get() {
    try {
      return sessionStorage.getItem(KEY) || held;
    } catch {
      return held;
    }
  },
  set(value) {
    held = value;
    try {
      sessionStorage.setItem(KEY, value);
    } catch {
      // Held until the page is closed, then.
    }
  },
};

export class ApiError extends Error {
  constructor(status, error = {}, retryAfter = 0) {
    super(error.message || "");
    const { code, param, minimum, maximum, multiple, given } = error;
    Object.assign(this, { status, code, param, retryAfter });
    this.limits = { minimum, maximum, multiple, given };
  }
}

// Which a page of another site cannot send: behind a proxy that tells the server another
// Host, its origin alone would make it one.
export const OWN_PAGE = { "X-Requested-With": "XMLHttpRequest" };

// Relative to the page, which may lie below a path of its proxy.
export const addressOf = (path) => new URL(path, document.baseURI).href;

export async function call(path, options = {}) {
  const own = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  const headers = { ...OWN_PAGE, ...own, ...options.headers };
  let answer;
  try {
    answer = await fetch(addressOf(path), { ...options, headers });
  } catch {
    throw new ApiError(0);
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new ApiError(answer.status, body.error, Number(answer.headers.get("Retry-After")));
}

// Throws what is in the way of using it: a status of 401 where the server does not know it.
export async function tryKey(value) {
  // A header cannot carry anything else.
  if (!/^[\x21-\x7e]+$/.test(value)) throw new ApiError(401);
  try {
    await call("v1/models", { headers: { Authorization: `Bearer ${value}` } });
  } catch (error) {
    // Busy or loading says nothing against the key.
    if ([0, 401].includes(error.status)) throw error;
  }
}

// Ends a request after so long. Not AbortSignal.timeout, which older browsers lack.
export function timeLimit(milliseconds) {
  const control = new AbortController();
  setTimeout(() => control.abort(), milliseconds);
  return control.signal;
}

export async function getJson(path, options) {
  const answer = await call(path, options);
  try {
    return await answer.json();
  } catch {
    // Broken off on its way, it is like an answer that never came.
    throw new ApiError(0);
  }
}

// Ends what has shown no sign of life for so long: a connection that something on the way
// has forgotten would be waited for in vain. The server's streams show one every ten seconds.
const SILENT_MS = 30_000;

export function endIfSilent(control) {
  let timer = 0;
  const onLife = () => {
    clearTimeout(timer);
    timer = setTimeout(() => control.abort(), SILENT_MS);
  };
  onLife();
  return { onLife, end: () => clearTimeout(timer) };
}

// An answer's headers and its body as a file, however long it takes.
export async function getFile(path) {
  const control = new AbortController();
  const silence = endIfSilent(control);
  try {
    const { headers, body } = await call(path, { signal: control.signal });
    const [reader, pieces] = [body.getReader(), []];
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { headers, blob: new Blob(pieces, { type: headers.get("Content-Type") }) };
      silence.onLife();
      pieces.push(value);
    }
  } catch (error) {
    throw error instanceof ApiError ? error : new ApiError(0);
  } finally {
    silence.end();
  }
}

// The data of each event of a stream. A picture is one long line over many chunks: the
// pieces are joined once, at its end. `onLife` is called at each sign of life.
export async function* events(answer, onLife) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let pieces = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onLife();
    const parts = value.split("\n");
    for (const part of parts.slice(0, -1)) {
      const line = pieces.join("") + part;
      pieces = [];
      if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
    }
    pieces.push(parts.at(-1));
  }
}

// Not crypto.randomUUID, which plain http beyond localhost lacks.
export function newJobId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
