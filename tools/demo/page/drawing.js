// A canvas that is drawn on with mouse, finger, pen or keys.

// Of the canvas: a stroke's width, and how far an arrow key moves the pen.
const STROKE = 0.1;
const STEP = 0.025;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Drawing {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {HTMLElement} nib shows where the pen of the keyboard is
   * @param {() => void} changed is called after each change
   */
  constructor(canvas, nib, changed) {
    this.canvas = canvas;
    this.nib = nib;
    this.changed = changed;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.pointer = null;
    this.last = null;
    this.pen = { x: canvas.width / 2, y: canvas.height * 0.25, isDown: false };

    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#press(event));
    canvas.addEventListener("focus", () => this.#showNib());
    canvas.addEventListener("blur", () => this.#lift());
  }

  /** The ink, 0 to 255, row by row. */
  get ink() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const ink = new Uint8ClampedArray(data.length / 4);
    for (let at = 0; at < ink.length; at++) ink[at] = data[4 * at + 3];
    return ink;
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.changed();
  }

  #begin(event) {
    // One at a time, and none but the main button.
    if (this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.nib.hidden = true;
    this.last = this.#place(event);
    this.#line(this.last);
  }

  #go(event) {
    if (event.pointerId !== this.pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    for (const each of between.length ? between : [event]) this.#line(this.#place(each));
  }

  #end(event) {
    if (event.pointerId === this.pointer) this.pointer = null;
  }

  #press(event) {
    const { key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (key in ARROWS) this.#movePen(...ARROWS[key]);
    else if (key === " ") this.#lowerOrLift();
    else if (key === "Delete" || key === "Backspace") this.clear();
    else return;
    event.preventDefault();
  }

  #movePen(right, down) {
    const { width, height } = this.canvas;
    this.pen.x = Math.min(width, Math.max(0, this.pen.x + right * STEP * width));
    this.pen.y = Math.min(height, Math.max(0, this.pen.y + down * STEP * height));
    if (this.pen.isDown) this.#line({ ...this.pen });
    this.#showNib();
  }

  #lowerOrLift() {
    this.pen.isDown = !this.pen.isDown;
    this.last = { ...this.pen };
    if (this.pen.isDown) this.#line(this.last);
    this.#showNib();
  }

  #lift() {
    this.pen.isDown = false;
    this.nib.hidden = true;
  }

  #showNib() {
    if (!this.canvas.matches(":focus-visible")) return;
    this.nib.hidden = false;
    this.nib.classList.toggle("down", this.pen.isDown);
    this.nib.style.left = `${(100 * this.pen.x) / this.canvas.width}%`;
    this.nib.style.top = `${(100 * this.pen.y) / this.canvas.height}%`;
  }

  /** A stroke from where the pen was. */
  #line(to) {
    const { context } = this;
    context.lineWidth = STROKE * this.canvas.width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(this.last.x, this.last.y);
    context.lineTo(to.x, to.y);
    context.stroke();
    // Of a line without length, nothing is drawn.
    context.beginPath();
    context.arc(to.x, to.y, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    this.last = to;
    this.changed();
  }

  #place(event) {
    const shown = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - shown.left) * this.canvas.width) / shown.width,
      y: ((event.clientY - shown.top) * this.canvas.height) / shown.height,
    };
  }
}
