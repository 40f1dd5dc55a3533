// What the server says in English, in the page's language, as far as the page knows it.
import { html } from "./vendor/htm-preact.js";
import { t } from "./words.js";

const KNOWN = [
  [/The model '([^']*)' knows no word of this prompt; GET \S+ lists what it draws\./, "knowsNoWord"],
  [/The model '([^']*)' does not know this order; GET \S+ lists the changes that it knows\./, "knowsNoOrder"],
  [/The model '([^']*)' draws one thing at a time, and this prompt names two; send a request for each\./, "drawsOneThing"],
  [/The mask is opaque: its white area is repainted\./, "maskOfWhite"],
  [/The mask was scaled from (\w+) to (\w+)\./, "maskScaled"],
  [/negative_prompt plays no part: guidance_scale is \S+, not above 1\./, "negativeUnread"],
  [/.*is a HEIC picture.*/, "noHeic"],
  [/.*is \w+; the limits are (\d+) pixels a side and (\d+) million pixels.*/, "pictureTooLarge"],
  [/.*(?:is damaged or not a supported image|is cut off).*/, "pictureDamaged"],
];

// Its known sentences in words, by name, and what is left of it.
export function understand(said = "") {
  const known = {};
  let rest = said;
  for (const [pattern, name] of KNOWN) {
    const match = pattern.exec(rest);
    if (!match) continue;
    known[name] = t(name, ...match.slice(1));
    rest = rest.replace(match[0], "").trim();
  }
  return { known, rest };
}

// Folded away: it is in English, for whoever looks after the server.
export function ServerWords({ said }) {
  return html`<details class="said"><summary>${t("serverWords")}</summary><p lang="en">${said}</p></details>`;
}
