// The dialog to paint a mask in: its tools around the view.
import { html, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { Icon } from "./icons.js";
import { MaskCanvas } from "./mask_canvas.js";
import { MaskView } from "./mask_view.js";
import { Dialog, closeDialog } from "./parts.js";
import { download, urlOf } from "./pictures.js";
import { notify, setInputs, state } from "./state.js";
import { t } from "./words.js";

const SMALLEST = 2;

// Mask and view live as long as the dialog; `brush` is what the pointer paints with now.
function useMask(brush, redraw) {
  const parts = useRef({});
  const latest = useRef(brush);
  latest.current = brush;
  useLayoutEffect(() => {
    const { canvas, view, world, ring } = parts.current;
    const mask = new MaskCanvas(canvas, state.mask?.strokes);
    const seen = new MaskView({ view, world, ring, mask, brush: () => latest.current, onStroke: redraw });
    Object.assign(parts.current, { mask, seen });
    const control = new AbortController();
    seen.listen(control.signal);
    seen.fit();
    mask.open().then(redraw);
    return () => control.abort();
  }, []);
  useLayoutEffect(() => parts.current.seen?.showRing(), [brush.size]);
  return parts;
}

function Tool({ icon, label, onClick, pressed, disabled, extra = "" }) {
  return html`<button class="button square ${extra}" aria-label=${label} title=${label}
    aria-pressed=${pressed} disabled=${disabled} onClick=${onClick}><${Icon} name=${icon} /></button>`;
}

function useKeys(actions) {
  const latest = useRef(actions);
  latest.current = actions;
  useLayoutEffect(() => {
    const press = (event) => {
      const { undo, redo, brush, eraser, wider, narrower, zoomIn, zoomOut, fit } = latest.current;
      const key = event.key.toLowerCase();
      const act = event.ctrlKey || event.metaKey
        ? { z: event.shiftKey ? redo : undo, y: redo }[key]
        : { b: brush, e: eraser, "]": wider, "[": narrower, "+": zoomIn, "-": zoomOut, 0: fit }[key];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

export function MaskDialog() {
  // Of this one the mask is, whatever takes its place meanwhile.
  const [input] = useState(() => state.inputs[0]);
  const longest = Math.max(input.width, input.height);
  const [kind, setKind] = useState("paint");
  const [size, setSize] = useState(Math.round(longest / 12));
  const [, setTick] = useState(0);
  const redraw = () => setTick((tick) => tick + 1);
  const parts = useMask({ kind, size }, redraw);
  const file = useRef();
  const { mask, seen } = parts.current;
  const hold = (name) => (element) => {
    parts.current[name] = element;
  };
  const change = (act) => () => {
    act();
    redraw();
  };
  const actions = {
    undo: change(() => mask.undo()),
    redo: change(() => mask.redo()),
    invert: change(() => mask.apply({ kind: "invert" })),
    clear: change(() => mask.apply({ kind: "clear" })),
    brush: () => setKind("paint"),
    eraser: () => setKind("erase"),
    wider: () => setSize((now) => Math.min(longest, Math.round(now * 1.2) + 1)),
    narrower: () => setSize((now) => Math.max(SMALLEST, Math.round(now / 1.2))),
    zoomIn: () => seen.zoom(1.25),
    zoomOut: () => seen.zoom(0.8),
    fit: () => seen.fit(),
  };
  useKeys(actions);
  const load = async ([chosen]) => {
    if (!chosen) return;
    try {
      if (!(await mask.load(chosen))) notify(t("maskShape", input.width, input.height));
    } catch {
      notify(t("notAPicture", chosen.name));
    }
    redraw();
  };
  const choose = (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    load(files);
  };
  const finish = async () => {
    const isBlank = mask.isEmpty || mask.isBlank;
    const made = isBlank ? null : { blob: await mask.toMask(), strokes: mask.strokes };
    const isStill = state.inputs[0] === input;
    if (isStill || made) setInputs(isStill ? state.inputs : [input], made);
    closeDialog();
    if (isBlank && !mask.isEmpty) notify(t("maskBlank"));
    document.getElementById("prompt").focus();
  };
  const without = () => {
    setInputs(state.inputs);
    closeDialog();
  };
  return html`<${Dialog} kind="whole mask" title=${t("paintMask")} onFiles=${load}>
    <div class="mask-tools" role="toolbar" aria-label=${t("tools")}>
      <${Tool} icon="brush" label=${`${t("brush")} (B)`} pressed=${kind === "paint"} onClick=${actions.brush} />
      <${Tool} icon="eraser" label=${`${t("eraser")} (E)`} pressed=${kind === "erase"} onClick=${actions.eraser} />
      <input class="brush-size" type="range" min=${SMALLEST} max=${Math.round(longest / 3)} value=${size}
        aria-label=${t("brushSize")} onInput=${(event) => setSize(Number(event.target.value))} />
      <i class="gap"></i>
      <${Tool} icon="undo" label=${t("undo")} disabled=${!mask || mask.isEmpty} onClick=${actions.undo} />
      <${Tool} icon="redo" label=${t("redo")} disabled=${!mask?.undone.length} onClick=${actions.redo} />
      <${Tool} icon="invert" label=${t("invert")} onClick=${actions.invert} />
      <${Tool} icon="trash" label=${t("clear")} disabled=${!mask || mask.isEmpty} onClick=${actions.clear} />
      <i class="gap"></i>
      <${Tool} icon="minus" extra="zoom" label=${t("zoomOut")} onClick=${actions.zoomOut} />
      <${Tool} icon="add" extra="zoom" label=${t("zoomIn")} onClick=${actions.zoomIn} />
      <${Tool} icon="expand" label=${t("fit")} onClick=${actions.fit} />
      <i class="gap"></i>
      <${Tool} icon="up" label=${t("loadMask")} onClick=${() => file.current.click()} />
      <${Tool} icon="down" label=${t("saveMask")} onClick=${async () => download(await mask.toMask(), "mask")} />
      <input ref=${file} type="file" accept="image/*" hidden onChange=${choose} />
    </div>
    <div class="mask-view" ref=${hold("view")} tabindex="0" autofocus role="application"
        aria-label="${t("maskCanvas")}. ${t("maskKeys")}">
      <div class="world" ref=${hold("world")} style=${{ width: `${input.width}px`, height: `${input.height}px` }}>
        <img src=${urlOf(input.blob)} width=${input.width} height=${input.height} alt="" draggable=${false} />
        <canvas ref=${hold("canvas")} width=${input.width} height=${input.height}></canvas></div>
      <i class="ring-cursor" ref=${hold("ring")}></i></div>
    <footer><p class="note">${t("maskHint")}</p>
      ${state.mask && html`<button class="button framed" onClick=${without}>${t("noMask")}</button>`}
      <button class="button main" onClick=${finish}>${t("done")}</button></footer><//>`;
}
