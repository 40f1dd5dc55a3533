// What this browser keeps: small settings by name, pictures and unfinished jobs in IndexedDB.
// A browser may refuse both (private windows, full disks): then nothing is kept.

export function recall(name) {
  try {
    return JSON.parse(localStorage.getItem(`flux.${name}`));
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`flux.${name}`, JSON.stringify(value));
  } catch {
    // Kept until the page is closed, then.
  }
}

let opening = null;

function open() {
  opening ||= new Promise((resolve, reject) => {
    const asked = indexedDB.open("flux-imaging", 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("pictures", { keyPath: "id" }).createIndex("hash", "hash");
      asked.result.createObjectStore("pending", { keyPath: "id" });
      asked.result.createObjectStore("draft");
    };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
  return opening;
}

async function within(store, mode, work) {
  const database = await open();
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(store, mode);
    const asked = work(transaction.objectStore(store));
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = () => reject(transaction.error);
    transaction.onerror = () => reject(transaction.error);
  });
}

const all = (store) => within(store, "readonly", (kept) => kept.getAll());
const put = (store, value, key) => within(store, "readwrite", (kept) => kept.put(value, key));
const drop = (store, key) => within(store, "readwrite", (kept) => kept.delete(key));

export const allPictures = () => all("pictures");
export const pictureBy = (id) => within("pictures", "readonly", (kept) => kept.get(id));
export const pendingOf = (id) => within("pending", "readonly", (kept) => kept.get(id));
export const keepPicture = (picture) => put("pictures", picture);
export const dropPicture = (id) => drop("pictures", id);
export const dropAllPictures = () => within("pictures", "readwrite", (kept) => kept.clear());
export const pictureOf = (hash) => within("pictures", "readonly", (kept) => kept.index("hash").get(hash));
export const allPending = () => all("pending");
export const keepPending = (job) => put("pending", job);
export const dropPending = (id) => drop("pending", id);
export const keepInputs = (inputs) => put("draft", inputs, "inputs");
export const keptInputs = () => within("draft", "readonly", (kept) => kept.get("inputs"));
