// Line icons of our own on a grid of 20 by 20.
import { html } from "./vendor/htm-preact.js";

const PATHS = {
  add: "M10 4.5v11M4.5 10h11",
  again: "M15.8 9A6 6 0 1 0 14 14.4M16 4v5h-5",
  brush: "M17 3 9.6 10.4M7.8 11.2c-2 0-2.8 1.4-2.9 3-.1 1-.6 1.7-1.6 2.1 3 .9 6.9.4 7-2.6",
  check: "m4 10.6 4 4L16.2 6",
  clock: "M10 6v4.2l2.8 1.7M10 3a7 7 0 1 0 .01 0",
  close: "m5.2 5.2 9.6 9.6m0-9.6-9.6 9.6",
  code: "m7 6.2-3.8 3.8L7 13.8m6-7.6 3.8 3.8-3.8 3.8",
  down: "M10 3.8v8.6m-3.8-3.6L10 12.6l3.8-3.8M4.2 16.2h11.6",
  eraser: "M8.4 16h8.1M3.8 12.2 11.4 4.6l4.4 4.4-7.2 7H6.8z",
  expand: "M8 3.8H3.8V8m8.4-4.2h4.2V8M8 16.2H3.8V12m8.4 4.2h4.2V12",
  grid: "M3.8 3.8h5v5h-5zm7.4 0h5v5h-5zm-7.4 7.4h5v5h-5zm7.4 0h5v5h-5z",
  hash: "M8.2 3.6 6.4 16.4m7.2-12.8-1.8 12.8M4 7.8h12.6M3.4 12.2H16",
  image: "M3.4 4.4h13.2v11.2H3.4zm.2 8.4 3.8-3.6 3.8 3.6 2-2 3.2 3M13 7.6h.01",
  invert: "M10 3.4v13.2M10 3.4a6.6 6.6 0 1 0 .01 0M10 6a4 4 0 0 1 0 8",
  key: "M12.6 3.8a3.6 3.6 0 1 0 .01 0M10 9.8l-6 6m1.6 0 2 .2m-.2-2.4 1.8.2",
  link: "M8.4 11.6 11.6 8.4M9.4 5.8 11 4.2a3.2 3.2 0 0 1 4.8 4.8l-1.6 1.6M10.6 14.2 9 15.8A3.2 3.2 0 0 1 4.2 11l1.6-1.6",
  minus: "M4.5 10h11",
  more: "M4.8 10h.01M10 10h.01M15.2 10h.01",
  pen: "m3.8 16.2 1-3.8 8.8-8.8 2.8 2.8-8.8 8.8z",
  redo: "M13 4.2 16.4 7.6 13 11M16 7.6H8.6a4.2 4.2 0 0 0 0 8.4H12",
  search: "M8.8 3.8a5 5 0 1 0 .01 0M12.6 12.6l3.8 3.8",
  sliders: "M3.4 6.2h6.4m4 0h2.8M11.8 4.2v4M3.4 13.8h2.8m4 0h6.4M8.2 11.8v4",
  stop: "M5.6 5.6h8.8v8.8H5.6z",
  sun: "M10 6.8a3.2 3.2 0 1 0 .01 0M10 2.4v1.2m0 12.8v1.2M2.4 10h1.2m12.8 0h1.2M4.6 4.6l.9.9m9 9 .9.9m0-10.8-.9.9m-9 9-.9.9",
  swap: "M4 7.2h11.6l-3-3M16 12.8H4.4l3 3",
  trash: "M4 5.8h12M8 5.6V3.8h4v1.8M5.8 5.8l.7 10.4h7l.7-10.4M8.6 8.8v4.6m2.8-4.6v4.6",
  undo: "M7 4.2 3.6 7.6 7 11M4 7.6h7.4a4.2 4.2 0 0 1 0 8.4H8",
  up: "M10 16.2V5m-4.2 4L10 4.8 14.2 9",
  vary: "M3.8 3.8h8.4v8.4H3.8zm4 11v1.4h8.4V7.8h-1.4",
  warn: "m10 3.4 7 12.4H3zM10 8.2v3.6m0 2.2v.01",
};

export function Icon({ name, size = 20 }) {
  return html`<svg width=${size} height=${size} viewBox="0 0 20 20" aria-hidden="true"
    fill=${name === "stop" ? "currentColor" : "none"} stroke="currentColor"
    stroke-width=${name === "more" ? 2.4 : 1.5} stroke-linecap="round" stroke-linejoin="round">
    <path d=${PATHS[name]} /></svg>`;
}
