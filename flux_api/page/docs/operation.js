// One operation: what it takes, what it answers, and a form to try it.
import { html, useState } from "../vendor/htm-preact.js";
import { Try } from "./try.js";
import { fieldsOf, typeOf } from "./spec.js";
import { say } from "./words.js";

// Words in backticks are code, lines with a dash are a list.
const inline = (text) => text.split(/`+([^`]+)`+/).map((part, n) => (n % 2 ? html`<code>${part}</code>` : part));

// A code in front of its text.
function listed(item) {
  const [code, ...text] = item.split(": ");
  return text.length ? `${code}: ${say(text.join(": "))}` : say(item);
}

export function Prose({ text = "" }) {
  const [before, ...list] = text.split(/^- /m);
  return html`${before.trim() && html`<p>${inline(say(before))}</p>`}
    ${list.length > 0 && html`<ul class="codes">${list.map((item) => html`<li>${inline(listed(item))}</li>`)}</ul>`}`;
}

// What a value may be: bounds, the form of a text.
function boundsOf({ minimum, maximum, maxLength, pattern, default: usual }) {
  const parts = [];
  // Above 2^53 a number here is no longer the one that was meant.
  const most = maximum > Number.MAX_SAFE_INTEGER ? "2^64 - 1" : maximum;
  if (minimum !== undefined && Math.abs(minimum) < 1e9) parts.push(say("{} to {}", minimum, most));
  if (maxLength !== undefined) parts.push(say("at most {} characters", maxLength));
  if (pattern) parts.push(pattern);
  if (usual !== undefined && String(usual)) parts.push(say("default {}", usual));
  return parts.join("; ");
}

function Fields({ caption, fields }) {
  return html`<table class="fields"><caption>${say(caption)}</caption>
    <thead><tr><th scope="col">${say("Name")}</th><th scope="col">${say("Type")}</th><th scope="col">${say("Meaning")}</th></tr></thead>
    <tbody>${fields.map(({ name, schema, description = "", required }) => html`<tr key=${name}>
      <th scope="row"><code>${name}</code>${required && html` <span class="needed">${say("needed")}</span>`}</th>
      <td><span class="type">${typeOf(schema)}</span></td>
      <td><${Prose} text=${description} />
        ${boundsOf(schema) && html`<p class="note">${boundsOf(schema)}</p>`}</td></tr>`)}</tbody></table>`;
}

// What an answer holds, as an outline: each level on request.
function Shape({ spec, schema, name, optional = false }) {
  const { properties, items, additionalProperties, required = [], description } = spec.resolve(schema);
  const inner = properties || (items && spec.resolve(items).properties && spec.resolve(items));
  const title = html`${name && html`<code>${name}</code> `}<span class="type">${typeOf(schema)}</span>
    ${optional && html` <span class="note">${say("where there is one")}</span>`}
    ${description && html` <span class="note">${say(description)}</span>`}`;
  if (properties || inner || additionalProperties?.properties) {
    const within = spec.resolve(properties ? { properties, required } : inner || additionalProperties);
    return html`<details class="shape" open=${!name}><summary>${title}</summary>
      <ul>${Object.entries(within.properties).map(([key, one]) => html`<li key=${key}>
        <${Shape} spec=${spec} schema=${one} name=${key} optional=${!within.required?.includes(key)} /></li>`)}</ul></details>`;
  }
  return html`<span>${title}</span>`;
}

function Answers({ spec, answers }) {
  return html`<table class="answers"><caption>${say("Answers")}</caption>
    <thead><tr><th scope="col">${say("Status")}</th><th scope="col">${say("When, and what")}</th></tr></thead>
    <tbody>${answers.map(({ status, description, content = {} }) => html`<tr key=${status}>
      <th scope="row"><span class="status ${status < 400 ? "good" : "bad"}">${status}</span></th>
      <td><${Prose} text=${description} />
        ${Object.entries(content).map(([kind, { schema }]) => html`<div key=${kind} class="content">
          <span class="kind">${kind}</span>
          ${status < 400 && Object.keys(schema).length > 0 && html`<${Shape} spec=${spec} schema=${schema} />`}
        </div>`)}</td></tr>`)}</tbody></table>`;
}

export function Operation({ spec, operation }) {
  const { id, method, path, others, description, parameters, body, isJson, answers } = operation;
  const [open, setOpen] = useState(false);
  const fields = fieldsOf(body);
  return html`<article id=${id} aria-labelledby=${`${id}-name`}>
    <h3 id=${`${id}-name`}><span class="method ${method}">${method}</span> <code>${path}</code></h3>
    <${Prose} text=${description} />
    ${others.length > 0 && html`<p class="note">${say("Also at")} ${others.map((other, n) => html`${n > 0 && ", "}<code>${other}</code>`)}</p>`}
    <details class="try" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
      <summary>${say("Try it")}</summary>${open && html`<${Try} operation=${operation} />`}</details>
    <details><summary>${say("What it takes and answers")}</summary>
      ${parameters.length > 0 && html`<${Fields} caption="Parameters" fields=${parameters} />`}
      ${fields.length > 0 && html`<${Fields} caption=${isJson ? "Body, as JSON" : "Body, as a form or JSON"} fields=${fields} />`}
      <${Answers} spec=${spec} answers=${answers} /></details></article>`;
}
