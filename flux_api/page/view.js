// One picture over the whole window; arrow keys turn the pages.
import { html, useLayoutEffect } from "./vendor/htm-preact.js";
import { Dialog, closeDialog } from "./parts.js";
import { urlOf } from "./pictures.js";
import { selectedJob, set, state, titleOf } from "./state.js";

const TURNS = { ArrowLeft: -1, ArrowRight: 1 };

export function ViewDialog() {
  const job = selectedJob();
  useLayoutEffect(() => {
    const turn = (event) => {
      const made = state.jobs.filter(({ state: now }) => now === "done");
      const next = made[made.indexOf(selectedJob()) + TURNS[event.key]];
      if (next) set({ selected: next.id });
    };
    addEventListener("keydown", turn);
    return () => removeEventListener("keydown", turn);
  }, []);
  const name = titleOf(job);
  return html`<${Dialog} kind="whole view" title=${name}>
    <div class="view-picture" onClick=${closeDialog}><img src=${urlOf(job.blob)} alt=${name} /></div><//>`;
}
