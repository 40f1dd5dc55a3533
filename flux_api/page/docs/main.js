// The description of the API, drawn from openapi.json: what there is, and each of it to try.
import { html, render, useState } from "../vendor/htm-preact.js";
import { addressOf, key } from "../api.js";
import { recall } from "../storage.js";
import { LANGUAGES, firstLanguage } from "../words.js";
import { Operation, Prose } from "./operation.js";
import { Spec } from "./spec.js";
import { language, say, speak } from "./words.js";

const theme = recall("theme");
if (theme) document.documentElement.dataset.theme = theme;

function Key() {
  const [value, setValue] = useState(key.get());
  const change = ({ target }) => {
    key.set(target.value.trim());
    setValue(target.value);
  };
  return html`<div class="field key"><label for="key">${say("API key, for this tab")}</label>
    <input id="key" type="password" autocomplete="off" value=${value} onInput=${change} /></div>`;
}

function Contents({ shelves }) {
  return html`<nav aria-label=${say("Contents")}>${shelves.map(({ name, operations }) => html`
    <h2>${say(name)}</h2>
    <ul>${operations.map(({ id, method, path }) => html`
      <li><a href=${`#${id}`}><span class="method ${method}">${method}</span> <code>${path}</code></a></li>`)}</ul>`)}
  </nav>`;
}

function Page({ spec }) {
  const [, draw] = useState(language);
  const other = language === "ja" ? "en" : "ja";
  const { info, security } = spec.document;
  const shelves = spec.shelves();
  return html`<div class="docs">
    <header><h1><a href="./"><img src="page/icon.svg" width="28" height="28" alt="" />${info.title}</a></h1>
      <p class="note">${info.version} · <a href="openapi.json">openapi.json</a> ·
        <button class="button quiet" lang=${other} onClick=${() => speak(other).then(() => draw(other))}>${LANGUAGES[other]}</button></p></header>
    <details class="contents" open=${matchMedia("(min-width: 1000px)").matches}>
      <summary>${say("Contents")}</summary><${Contents} shelves=${shelves} /></details>
    <main>
      <${Prose} text=${info.description} />
      ${security.length > 0 && html`<${Key} />`}
      ${shelves.map(({ name, operations }) => html`<section key=${name}><h2>${say(name)}</h2>
        ${operations.map((one) => html`<${Operation} key=${one.id} spec=${spec} operation=${one} />`)}
      </section>`)}
    </main></div>`;
}

async function start() {
  const place = document.getElementById("docs");
  await speak(firstLanguage());
  const answer = await fetch(addressOf("openapi.json")).catch(() => null);
  if (!answer?.ok) {
    render(html`<p class="problem" role="alert">${say("The description cannot be loaded. Try again.")}</p>`, place);
    return;
  }
  render(html`<${Page} spec=${new Spec(await answer.json())} />`, place);
  // What the address points to is there only now.
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) target.scrollIntoView();
}

start();
