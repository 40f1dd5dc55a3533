// Picture files in the browser: sizes, thumbnails, other formats, names.

const addresses = new WeakMap();

// One address a blob, for as long as the page is open.
export function urlOf(blob) {
  if (!blob) return null;
  if (!addresses.has(blob)) addresses.set(blob, URL.createObjectURL(blob));
  return addresses.get(blob);
}

// Its address holds a picture in memory until it is let go.
export function letGo(blob) {
  if (!addresses.has(blob)) return;
  URL.revokeObjectURL(addresses.get(blob));
  addresses.delete(blob);
}

// Formats that the server may read and most browsers do not show: TIFF, HEIC, AVIF.
const TIFF = ["II*\0", "MM\0*"];
const BOXED = /^ftyp(hei[cxms]|hev[cx]|mif1|msf1|avi[fs])/;

async function isUnseenKind(blob) {
  const start = String.fromCharCode(...new Uint8Array(await blob.slice(0, 12).arrayBuffer()));
  return TIFF.includes(start.slice(0, 4)) || BOXED.test(start.slice(4));
}

// What the browser cannot show has no size: it is sent as it is. Throws where it is no picture.
export async function measure(blob) {
  const { name } = blob;
  try {
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    bitmap.close();
    return { blob, name, width, height };
  } catch (error) {
    if (await isUnseenKind(blob)) return { blob, name, width: 0, height: 0 };
    throw error;
  }
}

export const isShown = (input) => input.width > 0;

export function makeCanvas(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

export function toFile(canvas, type = "image/png", quality = 0.92) {
  return new Promise((resolve) => canvas.toBlob(resolve, type, quality));
}

async function drawn(blob, scale) {
  const bitmap = await createImageBitmap(blob);
  const factor = Math.min(1, scale / Math.max(bitmap.width, bitmap.height));
  const canvas = makeCanvas(
    Math.max(1, Math.round(bitmap.width * factor)),
    Math.max(1, Math.round(bitmap.height * factor)),
  );
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
}

export const thumbnail = async (blob) => toFile(await drawn(blob, 320), "image/webp", 0.85);

async function convert(blob, type) {
  return blob.type === type ? blob : toFile(await drawn(blob, Infinity), type);
}

// A name for the file's bytes. Not crypto.subtle, which plain http beyond localhost lacks:
// it finds a picture again and guards nothing.
export async function hashOf(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let [one, two] = [0x811c9dc5, 0x1b873593];
  for (const byte of bytes) {
    one = Math.imul(one ^ byte, 0x01000193);
    two = Math.imul((two << 5) | (two >>> 27), 0x85ebca6b) ^ byte;
  }
  return [one >>> 0, two >>> 0, bytes.length].map((part) => part.toString(36)).join("-");
}

export function fromBase64(text, type) {
  const decoded = atob(text);
  const bytes = new Uint8Array(decoded.length);
  for (let i = 0; i < decoded.length; i++) bytes[i] = decoded.charCodeAt(i);
  return new Blob([bytes], { type });
}

export async function download(blob, name, type = blob.type) {
  const file = await convert(blob, type);
  const ending = type.split("/")[1].replace("jpeg", "jpg");
  const link = document.createElement("a");
  Object.assign(link, { href: urlOf(file), download: `${name}.${ending}` });
  link.click();
}
