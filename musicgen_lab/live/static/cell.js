// One cell of the page: a clip as far as it is made, and what is shown of it.
import { element } from "./dom.js";
import { placeOf } from "./form.js";
import { Picture } from "./picture.js";
import { decode } from "./service.js";
import { GrowingSound } from "./sound.js";

const TEXT_MAX = 60; // characters of a value that is shown
const short = (value) => (String(value).length > TEXT_MAX ? `${String(value).slice(0, TEXT_MAX)}…` : String(value));
const named = (fields) => Object.entries(fields).map(([name, value]) => `${name} ${value === null ? "none" : short(value)}`).join(", ");

const signature = (fields) => JSON.stringify(Object.entries(fields).sort());

/** What a clip is to be: `fields` of all clips, those that are varied, and those of its own. */
export class Wanted {
  constructor(common, varied, change = {}) {
    Object.assign(this, { common, varied, change });
    const all = Object.entries({ ...common, ...varied, ...change });
    this.fields = Object.fromEntries(all.filter(([, value]) => value !== null));
    this.signature = signature(this.fields);
    this.name = named(varied) || "the clip";
    this.changed = Object.keys(change).length ? `changed: ${named(change)}` : "";
    this.label = [this.name, this.changed].filter(Boolean).join("; ");
  }

  get place() { return placeOf(this.varied); }
  get isAlone() { return !Object.keys(this.varied).length; }

  /** The same place with other fields: what they have in common with the grid is not a change. */
  with(fields) {
    const grid = { ...this.common, ...this.varied };
    const names = new Set([...Object.keys(grid), ...Object.keys(fields)]);
    const other = [...names].filter((name) => grid[name] !== fields[name]);
    return new Wanted(this.common, this.varied, Object.fromEntries(other.map((name) => [name, fields[name] ?? null])));
  }

  /** The same place as it is in the grid. */
  get unchanged() { return new Wanted(this.common, this.varied); }
}

export class Cell extends EventTarget {
  /** Its events: "change", "again" and "undo" are pressed, "choose" is ticked or not, "done". */
  constructor(wanted, width, scale) {
    super();
    Object.assign(this, { state: "new", sound: new GrowingSound() });
    this.canvas = Object.assign(element("canvas"), { width, height: 192 });
    this.canvas.setAttribute("role", "img");
    this.player = element("clip-player", "", this.canvas);
    this.player.media = this.sound;
    this.player.dataset.length = "0";
    this.progress = element("progress");
    this.label = element("span", "label");
    this.text = element("span", "state");
    this.change = this.#button("change", "Change");
    this.again = this.#button("again", "New seed");
    this.undo = this.#button("undo", "Undo");
    this.chosen = Object.assign(element("input"), { type: "checkbox", checked: true });
    this.chosen.addEventListener("change", () => this.#tell("choose"));
    this.keep = element("label", "", [this.chosen, " keep"]);
    this.actions = element("span", "actions", [this.change, this.again, this.undo, this.keep]);
    const caption = element("figcaption", "", [this.label, this.text, this.actions]);
    this.figure = element("figure", "cell", [this.player, this.progress, caption]);
    this.picture = new Picture(this.canvas, this.sound, scale);
    for (const name of ["waiting", "playing"]) this.sound.addEventListener(name, () => this.show());
    this.showAs(wanted);
  }

  get isUnderWay() { return this.state === "waiting" || this.state === "making"; }
  get fields() { return this.wanted.fields; }

  /** Take a place in the grid; its clip is the same. */
  showAs(wanted) {
    const { label } = Object.assign(this, { wanted }).wanted;
    this.label.textContent = wanted.name;
    this.canvas.setAttribute("aria-label", `Mel spectrogram: ${label}`);
    this.player.dataset.label = label;
    this.progress.setAttribute("aria-label", `Progress of ${label}`);
    this.change.setAttribute("aria-label", `Change ${label} alone`);
    this.again.setAttribute("aria-label", `New seed: make ${label} again`);
    this.undo.setAttribute("aria-label", `Undo the change: make ${wanted.name} like the others`);
    this.chosen.setAttribute("aria-label", `keep ${label}`);
    this.show();
  }

  set width(pixels) {
    this.picture.width = pixels;
    this.#drawSoon();
  }

  set scale(seconds) {
    this.picture.scale = seconds;
    this.#drawSoon();
  }

  start() {
    this.state = "waiting";
    this.show();
  }

  /** Take an event of its stream. */
  receive(event) {
    if (event.type === "started") this.request = event.request;
    if (event.type === "progress") {
      this.state = "making";
      Object.assign(this, { done: event.steps_done, steps: event.steps });
    }
    if (event.type === "sound") {
      this.sound.add(decode(event.pcm), event.sample_rate, event.channels, event.frames);
      this.#drawSoon();
    }
    if (event.type === "clip") {
      Object.assign(this, { state: "done", clip: event });
      this.sound.end();
      this.#drawSoon();
      this.#tell("done");
    }
    if (event.type === "failed") this.fail(event.detail);
    this.show();
  }

  fail(problem) {
    if (!this.isUnderWay) return;
    Object.assign(this, { state: "failed", problem });
    this.sound.end(); // there is no more of it
    this.#drawSoon();
    this.show();
  }

  show() {
    const { state, done, steps } = this;
    this.figure.classList.toggle("failed", state === "failed");
    this.progress.hidden = !this.isUnderWay;
    if (steps) Object.assign(this.progress, { max: steps, value: done });
    const slow = this.sound.isSlow ? "; its sound arrives slower than it plays" : "";
    const seed = "seed" in this.wanted.change ? "" : `seed ${this.fields.seed}`;
    const first = {
      new: "not made yet", waiting: "waiting", making: `step ${done} of ${steps}${slow}`,
      done: seed, failed: this.problem,
    }[state];
    this.text.textContent = [first, this.wanted.changed, ...(this.clip?.warnings ?? [])].filter(Boolean).join("; ");
    const isMade = !this.isUnderWay && state !== "new";
    this.change.hidden = !isMade || this.wanted.isAlone;
    this.again.hidden = !isMade;
    this.undo.hidden = !isMade || !this.wanted.changed;
    this.keep.hidden = state !== "done";
  }

  #drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.picture.draw();
      this.player.grow(Float32Array.from(this.sound.peaks), this.sound.duration);
    });
  }

  #button(name, text) {
    const made = element("button", name, text);
    made.addEventListener("click", () => this.#tell(name));
    return made;
  }

  #tell(name) { this.dispatchEvent(new Event(name)); }
}
