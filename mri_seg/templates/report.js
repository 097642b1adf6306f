
"use strict";

const settings = JSON.parse(document.getElementById("settings").textContent);
const MISSED = 3; // classes 1 to 3: tumour only in the reference; 4 and 5: only in the prediction; 6: in both
const BOTH = settings.kinds.length + 1;
const RAMP = [[0, 34, 78], [254, 232, 56]]; // ends of the cividis colour map
const FILLS = ["errors", "probability", "attention"]; // layers that cover the image: one at a time
const inReference = (kind) => kind > 0 && (kind <= MISSED || kind === BOTH);
const inPrediction = (kind) => kind > MISSED;
const rgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
const KIND_COLORS = settings.kinds.map((kind) => rgb(kind.color));

/** A canvas that is not on the page. */
function makeCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** The grey levels of a PNG in base64, row by row. */
async function decode(png) {
  const image = new Image();
  image.src = "data:image/png;base64," + png;
  await image.decode();
  const context = makeCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height).data;
  return { width: image.width, gray: Uint8Array.from({ length: pixels.length / 4 }, (_, n) => pixels[4 * n]) };
}

/** Shows the slices of one case. */
class Viewer {
  constructor(element) {
    this.element = element;
    this.data = JSON.parse(element.querySelector("script").textContent);
    this.layers = { reference: true, prediction: true, errors: false, probability: false, attention: false };
    this.gate = 0;
    this.decoded = new Map();
    this.scrolled = 0;
    this.build();
    this.resetWindow();
    this.show(Number(element.dataset.slice));
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  build() {
    const { case: name, width, height, pixelHeight, gates, slices } = this.data;
    this.canvas = makeCanvas(width, height);
    this.canvas.style.aspectRatio = `${width} / ${height * pixelHeight}`;
    if (pixelHeight !== 1) this.canvas.style.objectFit = "fill";
    this.canvas.tabIndex = 0;
    const roles = { role: "slider", "aria-orientation": "vertical", "aria-label": `Slices of ${name}` };
    const range = { "aria-valuemin": 1, "aria-valuemax": slices.length };
    for (const [key, value] of Object.entries({ ...roles, ...range })) this.canvas.setAttribute(key, value);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.element.append(document.getElementById("viewer-parts").content.cloneNode(true));
    this.slider = this.find(".step input");
    this.slider.max = slices.length;
    this.find(".gate select").append(...Array.from({ length: gates }, (_, n) => new Option(`${n + 1}`, n)));
    this.find("[data-layer=probability]").hidden = !this.data.probability;
    this.find("[data-layer=attention]").hidden = gates === 0;
    for (const step of this.element.querySelectorAll("[data-window]")) step.step = this.data.high > 20 ? 1 : "any";
    this.drawProfile();
    this.listen();
    this.updateButtons();
  }

  listen() {
    this.element.addEventListener("keydown", (event) => this.onKey(event));
    this.element.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    for (const button of this.element.querySelectorAll("[data-layer]"))
      button.addEventListener("click", () => this.toggle(button.dataset.layer));
    this.find(".gate select").addEventListener("change", (event) => {
      this.gate = Number(event.target.value);
      this.paint();
    });
    for (const input of this.element.querySelectorAll("[data-window]"))
      input.addEventListener("change", () => this.typeWindow());
    this.find("[data-action=reset]").addEventListener("click", () => this.resetWindow());
    this.find("[data-action=save]").addEventListener("click", () => this.savePanel());
    this.canvas.addEventListener("pointerdown", (event) => this.onDrag(event));
  }

  onKey(event) {
    if (event.target.matches("input, select, a, summary") || event.ctrlKey || event.altKey || event.metaKey) return;
    const last = this.data.slices.length;
    const goal = {
      ArrowUp: this.slice + 1,
      ArrowRight: this.slice + 1,
      ArrowDown: this.slice - 1,
      ArrowLeft: this.slice - 1,
      PageUp: this.slice + 5,
      PageDown: this.slice - 5,
      Home: 1,
      End: last,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    this.show(goal);
  }

  /** The wheel changes slices only while the viewer has the focus, so that the page can still be scrolled. */
  onWheel(event) {
    if (event.ctrlKey || event.deltaY === 0 || !this.element.contains(document.activeElement)) return;
    event.preventDefault();
    const notch = 50; // pixels; a mouse gives at least as many, a touchpad a few at a time
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : Math.sign(event.deltaY) * notch;
    this.scrolled += Math.max(-notch, Math.min(notch, pixels));
    if (Math.abs(this.scrolled) < notch) return;
    this.show(this.slice - Math.sign(this.scrolled));
    this.scrolled = 0;
  }

  /** Dragging sideways changes the window, up and down the level. */
  onDrag(start) {
    if (start.button !== 0) return;
    const { black, white } = this;
    const perPixel = (2 * (this.data.white - this.data.black)) / this.canvas.clientWidth;
    const move = (event) => {
      const window = white - black + (event.clientX - start.clientX) * perPixel;
      this.setWindow(window, (white + black) / 2 + (event.clientY - start.clientY) * perPixel);
    };
    const stop = () => {
      this.canvas.removeEventListener("pointermove", move);
      for (const end of ["pointerup", "pointercancel"]) this.canvas.removeEventListener(end, stop);
    };
    this.canvas.setPointerCapture(start.pointerId);
    this.canvas.addEventListener("pointermove", move);
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, stop);
  }

  setWindow(window, level) {
    const { low, high } = this.data;
    const width = Math.min(Math.max(window, (high - low) / 255), 2 * (high - low));
    const middle = Math.min(Math.max(level, low), high);
    this.black = middle - width / 2;
    this.white = middle + width / 2;
    this.find("[data-window=window]").value = Number(width.toPrecision(4));
    this.find("[data-window=level]").value = Number(middle.toPrecision(4));
    this.paint();
  }

  typeWindow() {
    const [window, level] = ["window", "level"].map((name) => this.find(`[data-window=${name}]`).valueAsNumber);
    if (Number.isFinite(window) && Number.isFinite(level)) this.setWindow(window, level);
  }

  resetWindow() {
    const { black, white } = this.data;
    this.setWindow(white - black, (white + black) / 2);
  }

  toggle(layer) {
    const on = !this.layers[layer];
    if (FILLS.includes(layer)) for (const fill of FILLS) this.layers[fill] = false;
    this.layers[layer] = on;
    this.updateButtons();
    this.paint();
  }

  updateButtons() {
    for (const button of this.element.querySelectorAll("[data-layer]"))
      button.setAttribute("aria-pressed", String(this.layers[button.dataset.layer]));
    this.find(".gate").hidden = !this.layers.attention;
  }

  /** Show a slice, counted from 1. */
  async show(number) {
    this.slice = Math.max(1, Math.min(this.data.slices.length, number));
    const [reference, prediction, dice] = this.data.rows[this.slice - 1];
    const place = `Slice ${this.slice} of ${this.data.slices.length}`;
    const pixels = `reference ${reference.toLocaleString("en")}, prediction ${prediction.toLocaleString("en")} pixels`;
    const text = `${place}: ${pixels}, Dice ${dice.toFixed(3)}`;
    this.find(".status").textContent = text;
    this.slider.value = this.slice;
    this.slider.setAttribute("aria-valuetext", text);
    this.canvas.setAttribute("aria-valuenow", this.slice);
    this.canvas.setAttribute("aria-valuetext", text);
    this.find(".profile line").setAttribute("x1", this.slice - 0.5);
    this.find(".profile line").setAttribute("x2", this.slice - 0.5);
    await this.paint();
    for (const next of [this.slice + 1, this.slice - 1]) if (this.data.slices[next - 1]) this.layersOf(next);
  }

  /** The layers of a slice; those of the last few dozen slices are cached. */
  layersOf(number) {
    if (!this.decoded.has(number)) {
      if (this.decoded.size >= 48) this.decoded.delete(this.decoded.keys().next().value);
      this.decoded.set(number, this.unpack(this.data.slices[number - 1]));
    }
    return this.decoded.get(number);
  }

  async unpack(png) {
    const { width, height, gates, attentionStep, classStep } = this.data;
    const sheet = await decode(png);
    const rows = (first, count, left, across) => {
      const part = new Uint8Array(count * across);
      for (let row = 0; row < count; row++) {
        const start = (first + row) * sheet.width + left;
        part.set(sheet.gray.subarray(start, start + across), row * across);
      }
      return part;
    };
    const [down, across] = [Math.ceil(height / attentionStep), Math.ceil(width / attentionStep)];
    return {
      gray: rows(0, height, 0, width),
      probability: rows(height, height, 0, width),
      kinds: rows(2 * height, height, 0, width).map((level) => Math.round(level / classStep)),
      attention: Array.from({ length: gates }, (_, gate) => rows(3 * height, down, gate * across, across)),
    };
  }

  async paint() {
    if (!this.slice) return;
    const number = this.slice;
    const layers = await this.layersOf(number);
    if (number !== this.slice) return; // another slice was requested in the meantime
    this.context.putImageData(this.picture(layers), 0, 0);
    if (!this.canvas.isConnected) this.find(".stage").replaceChildren(this.canvas);
    this.element.dataset.painted = number;
  }

  /** The slice's grey levels between black and white. */
  grayLevels() {
    const { low, high } = this.data;
    return Uint8Array.from({ length: 256 }, (_, level) => {
      const share = (low + (level / 255) * (high - low) - this.black) / (this.white - this.black);
      return 255 * Math.max(0, Math.min(1, share));
    });
  }

  picture(layers) {
    const { width, height } = this.data;
    const levels = this.grayLevels();
    const picture = new ImageData(width, height);
    const fill = this.fill(layers);
    for (let pixel = 0; pixel < width * height; pixel++) {
      const level = levels[layers.gray[pixel]];
      const [color, opacity] = fill(pixel);
      for (let c = 0; c < 3; c++)
        picture.data[4 * pixel + c] = opacity ? (1 - opacity) * level + opacity * color[c] : level;
      picture.data[4 * pixel + 3] = 255;
    }
    if (this.layers.reference) this.outline(picture, layers.kinds, inReference, settings.reference);
    if (this.layers.prediction) this.outline(picture, layers.kinds, inPrediction, settings.prediction);
    return picture;
  }

  /** A function that gives the colour and the opacity of the layer over a pixel. */
  fill({ kinds, probability, attention }) {
    const ramp = (share) => RAMP[0].map((weak, c) => weak + share * (RAMP[1][c] - weak));
    const nothing = [null, 0];
    if (this.layers.errors) {
      const fills = KIND_COLORS.map((color) => [color, 0.75]);
      return (pixel) => fills[kinds[pixel] - 1] ?? nothing;
    }
    if (this.layers.probability) {
      const fills = Array.from({ length: 256 }, (_, level) => [ramp(level / 255), level < 3 ? 0 : 0.65]);
      return (pixel) => fills[probability[pixel]];
    }
    if (this.layers.attention) {
      const shares = this.enlarge(attention[this.gate]);
      return (pixel) => [ramp(shares[pixel]), 0.55];
    }
    return () => nothing;
  }

  /** Attention at the size of the image, from 0, the weakest of the slice, to 1, the strongest. */
  enlarge(small) {
    const { width, height, attentionStep: step } = this.data;
    const [down, across] = [Math.ceil(height / step), Math.ceil(width / step)];
    const weakest = small.reduce((a, b) => Math.min(a, b));
    const range = Math.max(small.reduce((a, b) => Math.max(a, b)) - weakest, 1);
    const large = new Float32Array(width * height);
    for (let row = 0; row < height; row++) {
      const y = Math.max(0, Math.min(down - 1, (row + 0.5) / step - 0.5));
      const [top, bottom] = [Math.floor(y) * across, Math.ceil(y) * across];
      for (let column = 0; column < width; column++) {
        const x = Math.max(0, Math.min(across - 1, (column + 0.5) / step - 0.5));
        const [left, right, part] = [Math.floor(x), Math.ceil(x), x % 1];
        const above = small[top + left] * (1 - part) + small[top + right] * part;
        const below = small[bottom + left] * (1 - part) + small[bottom + right] * part;
        large[row * width + column] = (above * (1 - (y % 1)) + below * (y % 1) - weakest) / range;
      }
    }
    return large;
  }

  /** An outline one pixel wide: pixels inside with one of their four neighbours outside. */
  outline(picture, kinds, inside, color) {
    const { width, height } = this.data;
    const outside = (row, column) =>
      row < 0 || column < 0 || row >= height || column >= width || !inside(kinds[row * width + column]);
    for (let row = 0; row < height; row++)
      for (let column = 0; column < width; column++)
        if (
          !outside(row, column) &&
          (outside(row - 1, column) || outside(row + 1, column) || outside(row, column - 1) || outside(row, column + 1))
        )
          picture.data.set(color, 4 * (row * width + column));
  }

  /** A bar for each slice above the slider: how much reference (filled) and prediction (line) it has. */
  drawProfile() {
    const { rows } = this.data;
    const svg = this.find(".profile");
    const most = Math.max(1, ...rows.map(([reference, prediction]) => Math.max(reference, prediction)));
    svg.setAttribute("viewBox", `0.5 0 ${Math.max(rows.length - 1, 1)} 1`); // from the middle of the first slice to that of the last
    const add = (name, attributes) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
      svg.append(shape);
    };
    const steps = (place) => rows.map((row, n) => `L${n} ${1 - row[place] / most}H${n + 1}`).join("");
    const thin = { "vector-effect": "non-scaling-stroke", fill: "none" };
    add("path", { d: `M0 1${steps(0)}V1Z`, fill: `rgb(${settings.reference})` });
    add("path", { d: `M0 1${steps(1)}V1`, stroke: `rgb(${settings.prediction})`, "stroke-width": 2, ...thin });
    add("line", { y1: 0, y2: 1, stroke: "currentColor", "stroke-width": 1, ...thin });
  }

  /** The slice in the style of the published model: image, manual mask, and both masks over the image. */
  async panel() {
    const [gap, bar] = [4, 18];
    const parts = [["manual mask", [150, 150, 150], 0.85, inReference], ["prediction", [255, 255, 0], 0.6, inPrediction]];
    const { width, height } = this.data;
    const layers = await this.layersOf(this.slice);
    const levels = this.grayLevels();
    const pictures = [0, 1, 2].map(() => new ImageData(width, height));
    for (let pixel = 0; pixel < width * height; pixel++) {
      const kind = layers.kinds[pixel];
      const level = levels[layers.gray[pixel]];
      let over = [level, level, level];
      for (const [, color, opacity, inside] of parts)
        if (inside(kind)) over = over.map((value, c) => (1 - opacity) * value + opacity * color[c]);
      const mask = inReference(kind) ? 255 : 0;
      pictures[0].data.set([level, level, level, 255], 4 * pixel);
      pictures[1].data.set([mask, mask, mask, 255], 4 * pixel);
      pictures[2].data.set([...over, 255], 4 * pixel);
    }
    const sheet = makeCanvas(3 * width + 2 * gap, bar + height);
    const context = sheet.getContext("2d");
    context.fillRect(0, 0, sheet.width, sheet.height);
    pictures.forEach((picture, n) => context.putImageData(picture, n * (width + gap), bar));
    context.font = "12px sans-serif";
    context.textBaseline = "middle";
    let left = 4;
    for (const [name, color] of parts) {
      context.fillStyle = `rgb(${color})`;
      context.fillRect(left, 5, 10, 10);
      context.fillStyle = "white";
      context.fillText(name, left + 14, bar / 2 + 1);
      left += 30 + context.measureText(name).width;
    }
    context.strokeText(String(this.slice), 3, bar + 8);
    context.fillText(String(this.slice), 3, bar + 8);
    return sheet;
  }

  async savePanel() {
    const number = this.slice;
    const sheet = await this.panel();
    sheet.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.data.case}_slice_${number}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }, "image/png");
  }
}

const viewers = new Map();

/** The viewer of an element, made when it is first needed; undefined if its slices are left out of the file. */
function viewerOf(element) {
  if (!viewers.has(element) && element.querySelector("script")) viewers.set(element, new Viewer(element));
  return viewers.get(element);
}

/** Open the viewer with this id at a slice, and focus it. */
async function openViewer(id, slice) {
  const element = document.getElementById(id);
  if (!element?.matches(".viewer")) return;
  if (element.tagName === "DETAILS") element.open = true;
  const viewer = viewerOf(element);
  await viewer?.show(slice || viewer.slice);
  element.scrollIntoView();
  (viewer?.canvas ?? element).focus({ preventScroll: true });
}

function startViewers() {
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        viewerOf(target);
      }
    },
    { rootMargin: "600px" },
  );
  for (const element of document.querySelectorAll("article.viewer")) near.observe(element);
  for (const element of document.querySelectorAll("details.viewer"))
    element.addEventListener("toggle", () => element.open && viewerOf(element));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-slice]");
    if (link) {
      event.preventDefault();
      history.replaceState(null, "", link.hash);
      openViewer(link.hash.slice(1), Number(link.dataset.slice));
    }
    const name = event.target.closest(".point")?.dataset.case; // of a chart; the table of patients has the same links
    const viewer = [...document.querySelectorAll(".viewer")].find((element) => element.dataset.case === name);
    if (viewer) openViewer(viewer.id);
  });
  if (location.hash) openViewer(location.hash.slice(1));
}

/** Sort the rows of a table by a column; sorting again reverses the order. */
function sortBy(header) {
  const [table, column] = [header.closest("table"), header.cellIndex];
  const text = header.classList.contains("text");
  const before = header.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : !text;
  const value = (row) => {
    const cell = row.cells[column];
    if (text) return cell.textContent.trim();
    const number = parseFloat(cell.dataset.value ?? cell.textContent.replaceAll(",", ""));
    return Number.isNaN(number) ? -Infinity : number;
  };
  const order = (a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (descending ? -1 : 1);
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
}

function startTables() {
  for (const header of document.querySelectorAll("table.sortable thead th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header));
    header.append(button);
  }
}

startTables();
startViewers();
