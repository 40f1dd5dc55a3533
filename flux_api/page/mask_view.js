// How the mask is looked at and painted on: zoom, pan, pointers, keys. Picture and mask lie
// in one box that a CSS transform moves, so looking around touches no pixel.

const ZOOM_MOST = 16;
const ZOOM_LEAST = 0.05;
const MARGIN = 24;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class MaskView {
  constructor({ view, world, ring, mask, brush, onStroke }) {
    Object.assign(this, { view, world, ring, mask, brush, onStroke });
    Object.assign(this, { scale: 1, x: 0, y: 0, fingers: new Map(), at: null });
    Object.assign(this, { stroke: null, panFrom: null, spaceHeld: false, isOver: false });
  }

  // Until the signal ends it.
  listen(signal) {
    const on = (target, name, handler) =>
      target.addEventListener(name, handler, { signal, passive: false });
    on(this.view, "pointerdown", (event) => this.#down(event));
    on(this.view, "pointermove", (event) => this.#move(event));
    on(this.view, "pointerup", (event) => this.#up(event));
    on(this.view, "pointercancel", (event) => this.#up(event));
    on(this.view, "pointerenter", () => this.#over(true));
    on(this.view, "pointerleave", () => this.#over(false));
    on(this.view, "wheel", (event) => this.#wheel(event));
    on(this.view, "keydown", (event) => this.#key(event));
    on(window, "keydown", (event) => this.#space(event));
    on(window, "keyup", (event) => this.#space(event));
    const observer = new ResizeObserver(() => this.fit());
    observer.observe(this.view);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  fit() {
    const { clientWidth, clientHeight } = this.view;
    const { width, height } = this.mask.canvas;
    this.scale = Math.min((clientWidth - MARGIN) / width, (clientHeight - MARGIN) / height);
    this.x = (clientWidth - width * this.scale) / 2;
    this.y = (clientHeight - height * this.scale) / 2;
    this.#place();
  }

  zoom(factor, [x, y] = [this.view.clientWidth / 2, this.view.clientHeight / 2]) {
    const scale = Math.min(ZOOM_MOST, Math.max(ZOOM_LEAST, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.#place();
  }

  showRing() {
    const side = this.brush().size * this.scale;
    const [x, y] = this.at || [-1e4, -1e4];
    Object.assign(this.ring.style, {
      width: `${side}px`,
      height: `${side}px`,
      transform: `translate(${x - side / 2}px, ${y - side / 2}px)`,
    });
  }

  #place() {
    this.world.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.showRing();
  }

  #point(at) {
    this.at = at;
    this.showRing();
  }

  #pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#place();
  }

  #local(event) {
    const box = this.view.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #onPicture([x, y]) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  #down(event) {
    this.view.setPointerCapture(event.pointerId);
    const at = this.#local(event);
    this.fingers.set(event.pointerId, at);
    if (this.fingers.size > 1) {
      // A second finger: the first was no stroke but the start of a pinch.
      if (this.stroke) this.mask.replay();
      this.stroke = null;
    } else if (event.button === 1 || this.spaceHeld) {
      this.panFrom = at;
    } else if (event.button === 0) {
      const { kind, size } = this.brush();
      this.stroke = this.mask.begin(kind, size, ...this.#onPicture(at));
    }
  }

  #move(event) {
    const at = this.#local(event);
    this.#point(at);
    if (this.fingers.size === 2 && this.fingers.has(event.pointerId)) {
      this.#pinch(event.pointerId, at);
    } else if (this.panFrom) {
      this.#pan(at[0] - this.panFrom[0], at[1] - this.panFrom[1]);
      this.panFrom = at;
    } else if (this.stroke) {
      const all = event.getCoalescedEvents?.() || [];
      const points = (all.length ? all : [event]).flatMap((one) => this.#onPicture(this.#local(one)));
      this.mask.extend(this.stroke, points);
    }
  }

  #pinch(id, at) {
    const before = this.fingers.get(id);
    const [, other] = [...this.fingers].find(([finger]) => finger !== id);
    const apart = ([x, y]) => Math.max(1, Math.hypot(x - other[0], y - other[1]));
    this.fingers.set(id, at);
    this.#pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    this.zoom(apart(at) / apart(before), [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2]);
  }

  #up(event) {
    this.fingers.delete(event.pointerId);
    this.panFrom = null;
    if (!this.stroke) return;
    this.mask.commit(this.stroke);
    this.stroke = null;
    this.onStroke();
  }

  #wheel(event) {
    event.preventDefault();
    if (event.shiftKey) this.#pan(-event.deltaY, 0);
    else this.zoom(Math.exp(-event.deltaY / 400), this.#local(event));
  }

  #over(isOver) {
    this.isOver = isOver;
    if (!isOver) this.#point(null);
  }

  // Held it moves the picture that the pointer is on, and presses no button meanwhile.
  #space(event) {
    if (event.key !== " " || !(this.isOver || this.spaceHeld || event.target === this.view)) return;
    event.preventDefault();
    this.spaceHeld = event.type === "keydown";
    this.view.classList.toggle("grab", this.spaceHeld);
  }

  // Painting without a mouse; the dialog has the other keys.
  #key(event) {
    const { kind, size } = this.brush();
    if (event.key in ARROWS) {
      event.preventDefault();
      const by = Math.max(4, (size * this.scale) / 3);
      const [x, y] = this.at || [this.view.clientWidth / 2, this.view.clientHeight / 2];
      this.#point([x + ARROWS[event.key][0] * by, y + ARROWS[event.key][1] * by]);
    } else if (event.key === "Enter" && this.at) {
      this.mask.commit(this.mask.begin(kind, size, ...this.#onPicture(this.at)));
      this.onStroke();
    }
  }
}
