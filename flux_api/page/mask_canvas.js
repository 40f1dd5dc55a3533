// The mask as strokes on a canvas of its own. Kept are the strokes, not their pixels: an
// undo replays them, and a kept mask is some kilobytes that can go on being edited.
import { makeCanvas, toFile } from "./pictures.js";

const STRIPE = 12;
const SHAPE = 0.02; // The server's own tolerance.
const COLOURS = ["#4a55e6", "#aab2ff"];
const bitmaps = new WeakMap(); // A bitmap cannot be stored, the file that it is made from can.

// Striped, so that it is seen on a picture of any colour.
function makePattern(pen) {
  const tile = makeCanvas(STRIPE, STRIPE);
  const brush = tile.getContext("2d");
  brush.fillStyle = COLOURS[0];
  brush.fillRect(0, 0, STRIPE, STRIPE);
  Object.assign(brush, { strokeStyle: COLOURS[1], lineWidth: STRIPE / 4, lineCap: "square" });
  for (const shift of [-STRIPE, 0, STRIPE]) {
    brush.moveTo(shift, STRIPE);
    brush.lineTo(shift + STRIPE, 0);
  }
  brush.stroke();
  return pen.createPattern(tile, "repeat");
}

export class MaskCanvas {
  constructor(canvas, strokes = []) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.paint = makePattern(this.pen);
    this.strokes = [...strokes];
    this.undone = [];
  }

  get isEmpty() {
    return !this.strokes.length;
  }

  // Whether nothing is painted any more: it was erased, or cleared.
  get isBlank() {
    const { data } = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    return !new Uint32Array(data.buffer).some((pixel) => pixel >>> 24 > 127);
  }

  async open() {
    for (const stroke of this.strokes.filter(({ file }) => file)) {
      bitmaps.set(stroke, await createImageBitmap(stroke.file));
    }
    this.replay();
  }

  begin(kind, size, x, y) {
    const stroke = { kind, size, points: [x, y] };
    this.#draw(stroke, 0);
    return stroke;
  }

  // Draws only the new piece: as quick on a large picture as on a small one.
  extend(stroke, points) {
    const from = stroke.points.length - 2;
    for (const value of points) stroke.points.push(Math.round(value * 4) / 4);
    this.#draw(stroke, from);
  }

  commit(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
  }

  apply(stroke) {
    this.#draw(stroke, 0);
    this.commit(stroke);
  }

  undo() {
    if (this.strokes.length) this.undone.push(this.strokes.pop());
    this.replay();
  }

  redo() {
    const stroke = this.undone.pop();
    if (!stroke) return;
    this.#draw(stroke, 0);
    this.strokes.push(stroke);
  }

  replay() {
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.strokes) this.#draw(stroke, 0);
  }

  // Alpha 0 where to repaint, as the API has it.
  toMask() {
    const { width, height } = this.canvas;
    const result = makeCanvas(width, height);
    const pen = result.getContext("2d");
    pen.fillRect(0, 0, width, height);
    pen.globalCompositeOperation = "destination-out";
    pen.drawImage(this.canvas, 0, 0);
    return toFile(result);
  }

  // A mask file: what is transparent in it, or white where it has no transparency. False
  // where it has another shape than the picture.
  async load(blob) {
    const { width, height } = this.canvas;
    const bitmap = await createImageBitmap(blob);
    if (Math.abs((bitmap.width * height) / (bitmap.height * width) - 1) > SHAPE) return false;
    const work = makeCanvas(width, height);
    const pen = work.getContext("2d");
    pen.drawImage(bitmap, 0, 0, width, height);
    const pixels = pen.getImageData(0, 0, width, height);
    const { data } = pixels;
    const hasAlpha = data.some((value, at) => at % 4 === 3 && value < 255);
    for (let at = 0; at < data.length; at += 4) {
      const repaint = hasAlpha ? 255 - data[at + 3] : (data[at] + data[at + 1] + data[at + 2]) / 3;
      data[at + 3] = repaint > 127 ? 255 : 0;
    }
    pen.putImageData(pixels, 0, 0);
    const stroke = { kind: "load", file: await toFile(work) };
    bitmaps.set(stroke, await createImageBitmap(work));
    this.apply(stroke);
    return true;
  }

  #draw(stroke, from) {
    const { pen, canvas } = this;
    const modes = { erase: "destination-out", invert: "xor", clear: "destination-out" };
    pen.globalCompositeOperation = modes[stroke.kind] || "source-over";
    Object.assign(pen, { fillStyle: this.paint, strokeStyle: this.paint, lineCap: "round", lineJoin: "round" });
    if (stroke.points) {
      const { points } = stroke;
      pen.lineWidth = stroke.size;
      pen.beginPath();
      pen.moveTo(points[from], points[from + 1]);
      // A dot is a line too, but not one without any length.
      if (points.length === 2) pen.lineTo(points[0] + 0.01, points[1]);
      for (let at = from; at < points.length; at += 2) pen.lineTo(points[at], points[at + 1]);
      pen.stroke();
    } else if (stroke.kind === "load") {
      this.#drawLoaded(bitmaps.get(stroke));
    } else {
      pen.fillRect(0, 0, canvas.width, canvas.height);
    }
    pen.globalCompositeOperation = "source-over";
  }

  #drawLoaded(bitmap) {
    const { pen, canvas } = this;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(bitmap, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }
}
