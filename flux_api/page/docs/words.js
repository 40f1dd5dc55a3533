// The description in the reader's language: it is written in English, with Japanese beside it.
import { remember } from "../storage.js";

let texts = {};
export let language = "en";

export async function speak(wanted) {
  texts = wanted === "ja" ? (await import("./ja.js")).default : {};
  language = wanted;
  document.documentElement.lang = wanted;
  remember("language", wanted);
}

// What is not translated stays as it is.
export const say = (text = "", ...values) =>
  values.reduce((said, value) => said.replace("{}", value), texts[text.replace(/\s+/g, " ").trim()] ?? text);
