// A form that calls one operation, and its answer as it comes.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact.js";
import { addressOf, key, OWN_PAGE } from "../api.js";
import { fieldsOf, typeOf } from "./spec.js";
import { say } from "./words.js";

const LONGEST_SHOWN = 120;
const MOST_TEXT = 20_000;

function Input({ id, field, example, isList }) {
  const { name, schema, required } = field;
  const common = { id, name, required: required || undefined };
  if (schema.format === "binary") return html`<input ...${common} type="file" accept="image/*" multiple=${isList} />`;
  const choices = schema.enum || (schema.type === "boolean" && ["true", "false"]);
  if (choices) {
    return html`<select ...${common}>${["", ...choices].map((choice) => html`<option value=${choice}>${choice || "–"}</option>`)}</select>`;
  }
  const shown = example === undefined || String(example).startsWith("data:") ? "" : String(example);
  const mode = ["integer", "number"].includes(schema.type) ? "decimal" : undefined;
  return html`<input ...${common} type="text" inputmode=${mode} autocomplete="off"
    defaultValue=${shown} placeholder=${typeOf(schema)} />`;
}

function Field({ prefix, field, example, isList }) {
  const id = `${prefix}-${field.in}-${field.name}`;
  return html`<div class="field"><label for=${id}><code>${field.name}</code>${field.required && ` (${say("needed")})`}</label>
    <${Input} id=${id} field=${field} example=${example} isList=${isList} /></div>`;
}

// What is never a form, as the text that is sent.
function JsonBody({ id, example }) {
  return html`<div class="field"><label for=${`${id}-body`}>${say("Body, as JSON")}</label>
    <textarea id=${`${id}-body`} name="body" rows="8" spellcheck=${false}
      defaultValue=${JSON.stringify(example, null, 2)}></textarea></div>`;
}

// The request that the form says; blank is left out.
function requestOf(operation, form) {
  const values = (place) => operation[place].filter(({ name }) => form.get(`${name}`));
  let path = operation.path;
  const query = new URLSearchParams();
  const headers = { ...OWN_PAGE };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (form.get("Accept")) headers.Accept = form.get("Accept");
  for (const { name, in: place } of values("parameters")) {
    const value = form.get(name);
    if (place === "path") path = path.replace(`{${name}}`, value.split("/").map(encodeURIComponent).join("/"));
    else if (place === "query") query.set(name, value);
    else headers[name] = value;
  }
  const options = { method: operation.method.toUpperCase(), headers };
  if (operation.isJson) {
    headers["Content-Type"] = "application/json";
    options.body = form.get("body");
  } else if (operation.body) {
    options.body = new FormData();
    for (const { name } of fieldsOf(operation.body)) {
      for (const value of form.getAll(name)) {
        if (value && (typeof value === "string" || value.size)) options.body.append(name, value);
      }
    }
  }
  const search = String(query);
  return [addressOf(path.slice(1) + (search && `?${search}`)), options];
}

// Pictures in Base64 would fill the page.
const shorten = (name, value) =>
  typeof value === "string" && value.length > LONGEST_SHOWN
    ? `${value.slice(0, LONGEST_SHOWN)}… ${say("({} characters)", value.length)}` : value;

async function read(answer, show) {
  const kind = (answer.headers.get("Content-Type") || "").split(";")[0];
  if (kind.startsWith("image/")) return show({ picture: URL.createObjectURL(await answer.blob()) });
  if (kind !== "text/event-stream") {
    const text = await answer.text();
    if (kind !== "application/json") return show({ text: text.slice(0, MOST_TEXT) });
    return show({ text: JSON.stringify(JSON.parse(text), shorten, 2).slice(0, MOST_TEXT) });
  }
  let said = "";
  for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
    said = (said + part).replace(/[^\s",]{400,}/g, (long) => `${long.slice(0, LONGEST_SHOWN)}…`);
    show({ text: said.slice(-MOST_TEXT) });
  }
  return undefined;
}

function Answer({ answer }) {
  if (!answer) return null;
  const { status, headers = [], text, picture, problem } = answer;
  return html`<div class="answer" aria-live="polite">
    ${problem && html`<p class="problem">${problem}</p>`}
    ${status && html`<p><span class="status ${status < 400 ? "good" : "bad"}">${status}</span></p>`}
    ${picture && html`<img src=${picture} alt=${say("The picture in the answer")} />`}
    ${text && html`<pre tabindex="0">${text}</pre>`}
    ${headers.length > 0 && html`<details><summary>${say("Headers")}</summary>
      <pre tabindex="0">${headers.map(([name, value]) => `${name}: ${value}`).join("\n")}</pre></details>`}</div>`;
}

export function Try({ operation }) {
  const [answer, setAnswer] = useState(null);
  const [running, setRunning] = useState(null);
  const stop = useRef();
  useEffect(() => () => stop.current?.abort(), []);
  const kinds = Object.keys(operation.answers.find(({ status }) => status === "200")?.content || {});
  const fields = operation.isJson ? [] : fieldsOf(operation.body);
  const isFirst = ({ name, required, schema }) =>
    required || schema.format === "binary" || name in (operation.example || {});
  const draw = (field) => html`<${Field} key=${field.name} prefix=${operation.id} field=${field}
    example=${field.example ?? operation.example?.[field.name]} isList=${operation.lists.includes(field.name)} />`;

  const send = async (event) => {
    event.preventDefault();
    const [address, options] = requestOf(operation, new FormData(event.target));
    stop.current = new AbortController();
    setRunning(true);
    setAnswer(null);
    try {
      const response = await fetch(address, { ...options, signal: stop.current.signal });
      const about = { status: response.status, headers: [...response.headers] };
      setAnswer(about);
      await read(response, (more) => setAnswer({ ...about, ...more }));
    } catch (error) {
      const problem = error.name === "AbortError" ? "Stopped." : "The server does not answer.";
      setAnswer((before) => ({ ...before, problem: say(problem) }));
    }
    setRunning(false);
  };

  const asked = operation.parameters.filter(({ in: place }) => place !== "header");
  const more = [...fields.filter((field) => !isFirst(field)), ...operation.parameters.filter(({ in: p }) => p === "header")];
  return html`<form onSubmit=${send}>
    <div class="inputs">${[...asked, ...fields.filter(isFirst)].map(draw)}</div>
    ${operation.isJson && html`<${JsonBody} id=${operation.id} example=${operation.example} />`}
    ${more.length > 0 && html`<details><summary>${say("More fields")}</summary><div class="inputs">${more.map(draw)}
      ${kinds.length > 1 && html`<div class="field"><label for=${`${operation.id}-accept`}><code>Accept</code></label>
        <select id=${`${operation.id}-accept`} name="Accept">${["", ...kinds].map((kind) => html`
          <option value=${kind}>${kind || "–"}</option>`)}</select></div>`}</div></details>`}
    <div class="buttons"><button class="button main" disabled=${running}>${say("Send")}</button>
      ${running && html`<button type="button" class="button stop" onClick=${() => stop.current.abort()}>${say("Stop")}</button>`}</div>
    <${Answer} answer=${answer} /></form>`;
}
