// The settings that not everybody needs; only those that the model honours.
import { html } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { NumberField } from "./parts.js";
import { randomSeed } from "./recipe.js";
import { lorasNow, modelNow, setDraft, state, taskNow } from "./state.js";
import { t } from "./words.js";

function Seed() {
  const { seed } = state.draft;
  const isFixed = seed != null;
  const flip = () => setDraft({ seed: isFixed ? null : randomSeed() });
  const button = html`<button type="button" class="button framed" onClick=${flip}>
    ${t(isFixed ? "random" : "fix")}</button>`;
  return html`<div class="wide"><${NumberField} name="seed" label=${t("seed")} hint=${t("random")}
    value=${seed} onCommit=${(value) => setDraft({ seed: value < 0 ? null : value })} button=${button} /></div>`;
}

function Select({ label, name, value, options, onChoose }) {
  return html`<label class="field wide">${label}
    <select name=${name} value=${value} onChange=${(event) => onChoose(event.target.value)}>
      ${options.map(([key, text]) => html`<option value=${key} selected=${key === value}>${text}</option>`)}
    </select></label>`;
}

function Loras() {
  const offered = lorasNow().map(({ id }) => id);
  const { loras } = state.draft;
  const chosen = loras.filter(({ name }) => offered.includes(name));
  const left = offered.filter((id) => !chosen.some(({ name }) => name === id));
  if (!offered.length) return null;
  const change = (name, weight) =>
    setDraft({ loras: state.draft.loras.map((lora) => (lora.name === name ? { name, weight } : lora)) });
  const most = state.capabilities.limits.max_lora_weight;
  return html`<fieldset class="wide loras"><legend>${t("loras")}</legend>
    ${chosen.map(({ name, weight }) => html`<div class="lora" key=${name}>
      <span title=${name}>${name}</span>
      <input type="range" min="0" max="2" step="0.05" value=${weight} aria-label=${t("weight", name)}
        onInput=${(event) => change(name, Number(event.target.value))} />
      <${NumberField} name=${`lora-${name}`} label=${t("weight", name)} hidden value=${weight}
        onCommit=${(value) => change(name, Math.max(-most, Math.min(most, value ?? 1)))} />
      <button type="button" class="button square" aria-label=${t("removeLora", name)}
        onClick=${() => setDraft({ loras: state.draft.loras.filter((lora) => lora.name !== name) })}>
        <${Icon} name="close" size=${16} /></button></div>`)}
    ${left.length > 0 && chosen.length < state.capabilities.limits.max_loras && html`
      <${Select} label=${t("addLora")} name="lora" value="" options=${[["", "…"], ...left.map((id) => [id, id])]}
        onChoose=${(name) => name && setDraft({ loras: [...state.draft.loras, { name, weight: 1 }] })} />`}</fieldset>`;
}

// What was unfolded may lie below the edge, behind the button.
function showOpened({ currentTarget }) {
  if (currentTarget.open) currentTarget.scrollIntoView({ block: "start" });
}

export function Settings() {
  const { draft, capabilities } = state;
  const task = taskNow();
  return html`<details class="settings" onToggle=${showOpened}><summary class="button quiet"><${Icon} name="sliders" />${t("more")}</summary>
    <div class="settings-grid">
      ${capabilities.models.length > 1 && html`<${Select} label=${t("model")} name="model" value=${modelNow().id}
        options=${capabilities.models.map(({ id }) => [id, id])}
        onChoose=${(model) => setDraft({ model, size: null })} />`}
      <${Seed} />
      <${NumberField} name="steps" label=${t("steps")} hint=${t("standard", task.num_inference_steps)}
        value=${draft.steps} onCommit=${(steps) => setDraft({ steps })} />
      ${task.guidance_scale != null && html`<${NumberField} name="guidance" label=${t("guidance")}
        hint=${t("standard", task.guidance_scale)} value=${draft.guidance}
        onCommit=${(guidance) => setDraft({ guidance })} />`}
      ${task.negative_prompt && html`<label class="field wide">${t("negative")}
        <input type="text" name="negative" placeholder=${t("negativeHint")} value=${draft.negative}
          onInput=${(event) => setDraft({ negative: event.target.value })} /></label>`}
      <${Select} label=${t("format")} name="format" value=${draft.format}
        options=${capabilities.formats.map((format) => [format, format.toUpperCase()])}
        onChoose=${(format) => setDraft({ format })} />
      <${Loras} />
    </div></details>`;
}
