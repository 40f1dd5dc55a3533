// The page's texts in one language, loaded when it is chosen.
import { recall, remember } from "./storage.js";

export const LANGUAGES = { en: "English", ja: "日本語" };

let words = {};
export let language = "en";

export async function speak(wanted) {
  ({ default: words } = await import(`./words/${wanted}.js`));
  language = wanted;
  document.documentElement.lang = wanted;
  remember("language", wanted);
}

export function firstLanguage() {
  const asked = [recall("language"), ...navigator.languages.map((tag) => tag.slice(0, 2))];
  return asked.find((tag) => tag in LANGUAGES) || "en";
}

export function t(name, ...values) {
  const word = words[name] ?? name;
  return typeof word === "function" ? word(...values) : word;
}

export const formatNumber = (value, digits = 1) =>
  new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
