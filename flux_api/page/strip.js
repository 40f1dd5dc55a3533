// Cards of what is under way and what was made, the newest first.
import { html, useLayoutEffect, useRef } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { urlOf } from "./pictures.js";
import { isLive, set, state, titleOf } from "./state.js";
import { t } from "./words.js";

const MOST_CARDS = 60;
const MOVES = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

function Ring({ part }) {
  return html`<svg class="ring ${part ? "" : "waits"}" viewBox="0 0 36 36" aria-hidden="true">
    <circle class="disc" cx="18" cy="18" r="17" /><circle class="rail" cx="18" cy="18" r="12" />
    <circle class="arc" cx="18" cy="18" r="12" pathLength="100"
      stroke-dasharray="${Math.max(4, part * 100)} 100" /></svg>`;
}

function Card({ job }) {
  const live = isLive(job);
  const picture = job.small || job.preview;
  const name = titleOf(job);
  const told = live && job.step ? t("step", job.step, job.steps) : job.state === "done" ? "" : t(job.state);
  return html`<li><button class="card ${job.state}" title=${name}
    aria-label=${told ? `${name}, ${told}` : name} aria-current=${state.selected === job.id ? "true" : null}
    onClick=${() => set({ selected: job.id })}>
    ${picture && html`<img src=${urlOf(picture)} alt="" loading="lazy" />`}
    ${live && html`<${Ring} part=${job.steps ? job.step / job.steps : 0} />`}
    ${!live && !picture && html`<${Icon} name=${job.state === "failed" ? "warn" : "stop"} />`}</button></li>`;
}

export function Strip() {
  const list = useRef();
  const newest = state.jobs[0]?.id;
  useLayoutEffect(() => {
    list.current?.scrollTo({ top: 0, left: 0 });
  }, [newest]);
  if (!state.jobs.length) return null;
  const move = (event) => {
    const cards = [...list.current.querySelectorAll(".card")];
    const next = cards[cards.indexOf(document.activeElement) + MOVES[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  };
  return html`<aside class="strip" aria-label=${t("recent")}><ul ref=${list} onKeyDown=${move}>
    ${state.jobs.slice(0, MOST_CARDS).map((job) => html`<${Card} key=${job.id} job=${job} />`)}</ul></aside>`;
}
