// The pictures of one study: slices of both ears in step with their surfaces. Reads what the page says, fetches the
// pack, and leaves the still pictures in place wherever something cannot be shown.

import { readVolume } from "./nifti.js";
import { clamp, drawSlice, voxelAt } from "./slices.js";
import { readSurface, Scene } from "./surfaces.js";

const PLANES = ["axial", "coronal", "sagittal"];
const IMAGES = { mrc: "MRC", hydrops: "HYDROPS, aligned", before: "HYDROPS, before alignment" };
const BLINK_MS = 700; // 1.4 changes a second: slow enough to compare, far below what may harm (three flashes a second)
const TURN = Math.PI / 18;
const TURN_PER_PIXEL = 0.01;
const WINDOW_PER_PIXEL = 0.004;

class EarViews {
  constructor(section, name, base, manifest) {
    this.section = section;
    this.name = name;
    this.base = base;
    this.manifest = manifest;
    this.geometry = manifest.geometry;
    this.canvases = Object.fromEntries(PLANES.map((plane) => [plane, section.querySelector(`[data-plane="${plane}"]`)]));
    this.sliders = Object.fromEntries(PLANES.map((plane) => [plane, section.querySelector(`[data-slice="${plane}"]`)]));
    this.surface = section.querySelector("[data-surface]");
    this.letters = section.querySelector("[data-letters]");
    this.turned = { yaw: 0, pitch: 0 };
  }

  async load() {
    const volume = (file) => readVolume(this.base + file, this.geometry);
    const [mrc, hydrops, before, labels] = await Promise.all([
      ...Object.keys(IMAGES).map((one) => volume(this.manifest.images[one].file)),
      volume(this.manifest.labels),
    ]);
    this.images = { mrc, hydrops, before };
    this.labels = labels.values;
    this.position = this.fullestVoxel();
    await this.loadSurfaces();
  }

  // Without WebGL the slices still work; the still picture of the surfaces stays.
  async loadSurfaces() {
    const spaces = Object.entries(this.manifest.surfaces);
    const read = await Promise.all(spaces.map(async ([space, file]) => [space, await readSurface(this.base + file)]));
    try {
      this.fit(this.surface);
      this.scene = new Scene(this.surface, this.letters, `${this.name} ear`, Object.fromEntries(read));
    } catch (problem) {
      this.surface.closest("figure").querySelector("[data-problem]").textContent =
        `No turning surface: ${problem.message}. The still picture below shows it.`;
      this.section.dataset.withoutSurface = "";
    }
  }

  // The middle of the fluid along each axis of the slice with the most of it.
  fullestVoxel() {
    const [, rows, columns] = this.geometry.shape;
    const perSlice = new Array(this.geometry.shape[0]).fill(0);
    this.labels.forEach((label, at) => { if (label) perSlice[Math.floor(at / (rows * columns))] += 1; });
    const k = perSlice.indexOf(Math.max(...perSlice));
    const sums = [0, 0, 0];
    for (let at = k * rows * columns; at < (k + 1) * rows * columns; at += 1) {
      if (!this.labels[at]) continue;
      sums[0] += 1;
      sums[1] += Math.floor(at / columns) % rows;
      sums[2] += at % columns;
    }
    return sums[0] ? [k, Math.round(sums[1] / sums[0]), Math.round(sums[2] / sums[0])] : this.geometry.shape.map((n) => n >> 1);
  }

  // Canvas pixels follow the screen's, so that a contour is sharp.
  fit(canvas) {
    const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
    if (canvas.width !== side) [canvas.width, canvas.height] = [side, side];
  }

  drawSlices(settings) {
    if (this.section.hidden) return;
    const [low, high] = this.manifest.images[settings.image].window;
    const middle = (low + high) / 2 + settings.level * (high - low);
    const half = ((high - low) / 2) * settings.width;
    for (const plane of PLANES) {
      const canvas = this.canvases[plane];
      if (canvas.closest("figure").hidden) continue;
      this.fit(canvas);
      drawSlice(canvas, this.geometry, plane, {
        image: this.images[settings.image],
        labels: this.labels,
        labelOf: this.manifest.label_of,
        window: [middle - half, middle + half],
        overlay: settings.overlay,
        opacity: settings.opacity,
        position: this.position,
        title: `${this.name} ear, ${plane}`,
      });
      this.tell(plane, settings);
    }
  }

  // Apart from the slices: without a graphics card one surface costs as much as twenty slices.
  drawSurface(settings) {
    if (this.section.hidden || !this.scene) return;
    this.fit(this.surface);
    this.fit(this.letters);
    this.scene.draw({ ...this.turned, solid: settings.solid });
  }

  tell(plane, settings) {
    const canvas = this.canvases[plane];
    const [through, count] = [this.geometry.planes[plane].through, this.geometry.shape[this.geometry.planes[plane].through]];
    const slice = `slice ${this.position[through] + 1} of ${count}`;
    const text = `${slice}, ${IMAGES[settings.image]}`;
    canvas.setAttribute("aria-valuemax", count);
    canvas.setAttribute("aria-valuenow", this.position[through] + 1);
    canvas.setAttribute("aria-valuetext", text);
    canvas.closest("figure").querySelector("[data-caption]").textContent = text;
    const slider = this.sliders[plane];
    slider.max = count;
    slider.value = this.position[through] + 1;
    slider.setAttribute("aria-valuetext", slice);
  }

  step(plane, by) {
    const { through } = this.geometry.planes[plane];
    this.goTo(plane, this.position[through] + by);
  }

  goTo(plane, slice) {
    const { through } = this.geometry.planes[plane];
    this.position[through] = clamp(slice, 0, this.geometry.shape[through] - 1);
  }

  point(plane, event) {
    const canvas = this.canvases[plane];
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    this.position = voxelAt(canvas, this.geometry, plane, this.position, x, y);
  }

  turn(yaw, pitch) {
    this.turned.yaw += yaw;
    this.turned.pitch = clamp(this.turned.pitch + pitch, -Math.PI / 2, Math.PI / 2);
  }

  // Where the ear is seen from; the ear's own side is the patient's.
  lookFrom(place) {
    const outward = this.name.toLowerCase() === "left" ? 1 : -1;
    this.turned = { front: { yaw: 0, pitch: 0 }, side: { yaw: (outward * Math.PI) / 2, pitch: 0 }, top: { yaw: 0, pitch: Math.PI / 2 } }[place];
  }
}

class Viewer {
  constructor(root) {
    this.root = root;
    this.controls = root.querySelector("[data-controls]");
    this.status = root.querySelector("[data-status]");
    this.settings = { image: "mrc", overlay: "contour", opacity: 1, level: 0, width: 1, solid: false };
    this.blinking = null;
  }

  async start() {
    const base = this.root.dataset.base;
    const answer = await fetch(`${base}manifest.json`);
    if (!answer.ok) throw new Error(`the node answered ${answer.status}`);
    const manifest = await answer.json();
    const sections = [...this.root.querySelectorAll("[data-ear]")];
    this.root.dataset.state = "loading";
    this.root.querySelector("[data-interactive]").hidden = false;
    this.ears = sections.map((one) => new EarViews(one, one.dataset.name, base, manifest.ears[one.dataset.ear]));
    this.show(this.ears.length > 1 ? "both" : sections[0].dataset.ear);
    await Promise.all(this.ears.map((ear) => ear.load()));
    this.listen();
    this.root.querySelector("[data-stills]").open = false;
    this.root.dataset.state = "ready";
    this.draw();
  }

  draw() {
    this.drawSlices();
    this.drawSurfaces();
  }

  drawSurfaces() {
    for (const ear of this.ears) ear.drawSurface(this.settings);
  }

  drawSlices() {
    for (const ear of this.ears) ear.drawSlices(this.settings);
    this.status.textContent = IMAGES[this.settings.image];
    const chosen = this.controls.querySelector(`[name="image"][value="${this.settings.image}"]`);
    chosen.checked = true;
  }

  // "both" puts the ears side by side, the right one on the viewer's left, each with one plane and its surface.
  show(which) {
    for (const ear of this.ears) {
      ear.section.hidden = which !== "both" && ear.section.dataset.ear !== which;
      for (const plane of ["coronal", "sagittal"]) ear.canvases[plane].closest("figure").hidden = which === "both";
    }
    this.root.dataset.shown = which;
  }

  set(changes) {
    Object.assign(this.settings, changes);
    this.drawSlices();
    if ("solid" in changes) this.drawSurfaces();
  }

  // Before and after change places over the same contour; who asked for less motion changes them by hand.
  blink() {
    const other = this.settings.image === "hydrops" ? "before" : "hydrops";
    this.set({ image: other });
  }

  toggleBlinking() {
    const button = this.controls.querySelector("[data-blink]");
    if (this.blinking !== null) {
      clearInterval(this.blinking);
      this.blinking = null;
    } else if (!window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.blinking = setInterval(() => this.blink(), BLINK_MS);
    }
    button.setAttribute("aria-pressed", String(this.blinking !== null));
    this.blink();
  }

  stopBlinking() {
    if (this.blinking !== null) this.toggleBlinking();
  }

  listen() {
    this.controls.addEventListener("input", (event) => this.onControl(event.target));
    this.controls.querySelector("[data-blink]").addEventListener("click", () => this.toggleBlinking());
    this.controls.querySelector("[data-reset]").addEventListener("click", () => this.reset());
    for (const ear of this.ears) this.listenTo(ear);
    document.addEventListener("keydown", (event) => {
      if (event.target === document.body || this.root.contains(event.target)) this.onKey(event);
    });
    new ResizeObserver(() => this.draw()).observe(this.root);
  }

  onControl(control) {
    if (control.name === "image") this.stopBlinking();
    if (control.name === "ear") {
      this.show(control.value);
      this.draw();
      return;
    }
    const value = { range: () => Number(control.value), checkbox: () => control.checked }[control.type];
    this.set({ [control.name]: value ? value() : control.value });
  }

  reset() {
    this.stopBlinking();
    this.controls.querySelectorAll("input").forEach((one) => {
      if (one.name === "ear") return;
      one.checked = one.defaultChecked;
      if (one.type === "range") one.value = one.defaultValue;
    });
    for (const ear of this.ears) {
      ear.position = ear.fullestVoxel();
      ear.lookFrom("front");
    }
    this.set({ image: "mrc", overlay: "contour", opacity: 1, level: 0, width: 1, solid: false });
  }

  listenTo(ear) {
    for (const plane of PLANES) {
      const canvas = ear.canvases[plane];
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        ear.step(plane, Math.sign(event.deltaY));
        ear.drawSlices(this.settings);
      }, { passive: false });
      this.drag(canvas, (event, moved) => {
        if (event.shiftKey || event.buttons === 2) this.grade(moved);
        else ear.point(plane, event);
        this.drawSlices();
      });
      canvas.addEventListener("contextmenu", (event) => event.preventDefault());
      ear.sliders[plane].addEventListener("input", (event) => {
        ear.goTo(plane, event.target.valueAsNumber - 1);
        ear.drawSlices(this.settings);
      });
    }
    this.drag(ear.surface, (_event, moved) => {
      ear.turn(-moved.x * TURN_PER_PIXEL, moved.y * TURN_PER_PIXEL);
      ear.drawSurface(this.settings);
    });
    ear.section.querySelectorAll("[data-from]").forEach((button) => button.addEventListener("click", () => {
      ear.lookFrom(button.dataset.from);
      ear.drawSurface(this.settings);
    }));
  }

  drag(canvas, act) {
    const move = (event) => act(event, { x: event.movementX, y: event.movementY });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      move(event);
      canvas.addEventListener("pointermove", move);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => canvas.removeEventListener("pointermove", move));
    }
  }

  // Brightness with up and down, contrast with left and right, as in PACS viewers.
  grade(moved) {
    const [level, width] = ["level", "width"].map((name) => this.controls.querySelector(`[name="${name}"]`));
    level.value = this.settings.level + moved.y * WINDOW_PER_PIXEL;
    width.value = this.settings.width + moved.x * WINDOW_PER_PIXEL;
    Object.assign(this.settings, { level: Number(level.value), width: Number(width.value) });
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.onCanvasKey(event)) event.preventDefault();
    else if (event.target.tagName !== "INPUT" || ["checkbox", "range"].includes(event.target.type)) this.onLetter(event.key.toLowerCase());
  }

  onLetter(key) {
    const image = { m: "mrc", h: "hydrops", u: "before" }[key];
    if (image) this.stopBlinking();
    if (image) this.set({ image });
    if (key === "b") this.toggleBlinking();
    if (key === "o") this.nextOverlay();
  }

  nextOverlay() {
    const order = ["contour", "fill", "none"];
    const overlay = order[(order.indexOf(this.settings.overlay) + 1) % order.length];
    this.controls.querySelector(`[name="overlay"][value="${overlay}"]`).checked = true;
    this.set({ overlay });
  }

  onCanvasKey(event) {
    const { plane } = event.target.dataset;
    const ear = this.ears.find((one) => one.section.contains(event.target));
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5, Home: -1e6, End: 1e6 }[event.key];
    const turn = { ArrowLeft: [TURN, 0], ArrowRight: [-TURN, 0], ArrowUp: [0, -TURN], ArrowDown: [0, TURN] }[event.key];
    if (!ear) return false;
    if (plane && step) {
      ear.step(plane, step);
      ear.drawSlices(this.settings);
      return true;
    }
    if ("surface" in event.target.dataset && turn) {
      ear.turn(...turn);
      ear.drawSurface(this.settings);
      return true;
    }
    return false;
  }
}

const root = document.querySelector("[data-views]");
if (root) {
  new Viewer(root).start().catch((problem) => {
    root.dataset.state = "failed";
    root.querySelector("[data-interactive]").hidden = true;
    root.querySelector("[data-failure]").textContent =
      `The interactive pictures cannot be shown here: ${problem.message}. The still pictures below are complete.`;
    root.querySelector("[data-failure]").hidden = false;
  });
}
