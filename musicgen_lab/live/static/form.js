// The form: its knobs, limits and defaults come from the service's OpenAPI document, and all of its
// values are in the page's address.
import { sendSound } from "./service.js";

const $ = (id) => document.getElementById(id);
const isNumber = ({ type }) => type === "number" || type === "integer";
const scalar = (schema) => schema.anyOf?.find(({ type }) => type && type !== "null") ?? schema;
const OWN = ["prompt", "seed", "model"]; // with an input of their own in the page

export class Form extends EventTarget {
  #sending; // the sound file that is on its way to the service

  constructor(schema, models) {
    super();
    this.schema = Object.fromEntries(
      Object.entries(schema.properties).map(([name, of]) => [name, { ...of, ...scalar(of) }]),
    );
    this.knobs = new Map();
    this.#limit($("prompt"), this.schema.prompt);
    this.#limit($("seed"), this.schema.seed);
    for (const model of models) $("model").append(new Option(model.split("@")[0], model.split("@")[0]));
    const names = Object.keys(this.schema), later = names.slice(names.indexOf("model")); // less used
    for (const [name, of] of Object.entries(this.schema)) {
      if (OWN.includes(name)) continue;
      if (of.default === null && isNumber(of)) this.#addOptional(name, of);
      else if (of.default === null && of.pattern) this.#addSound(name, of);
      else if (isNumber(of)) this.#addKnob(name, of, later.includes(name));
      else if (of.type === "string") this.#addText(name, of);
      else if (of.type === "boolean") this.#addSwitch(name, of);
    }
    $("more").hidden = !$("more").querySelector(".knob");
    const fields = [...this.knobs.keys()].filter((name) => isNumber(this.schema[name]) && this.schema[name].default !== null);
    for (const axis of ["down", "across"]) {
      $(axis).append(new Option("nothing", ""), ...[...fields, "seed"].map((name) => new Option(name)));
      $(axis).addEventListener("change", () => this.#suggest(axis));
    }
    $("draw").addEventListener("click", () => { this.drawSeed(); this.#changed(); });
    $("seed").addEventListener("change", () => { if (!$("seed").value) { this.drawSeed(); this.#changed(); } });
    $("request").addEventListener("input", ({ target }) => { if (target.id !== "key") this.#changed(); });
    this.read(new URLSearchParams(location.hash.slice(1)));
  }

  get isSeedNew() { return $("new-seed").checked; }
  get atOnce() { return $("at-once").checked && $("seed").value !== ""; }
  get isSending() { return this.#sending !== undefined; }

  newSeed() { return crypto.getRandomValues(new Uint32Array(1))[0] % (this.schema.seed.maximum + 1); }

  drawSeed() { $("seed").value = String(this.newSeed()); }

  /** What all clips have in common, and the fields and values that are varied down and across. */
  get request() {
    const fields = { prompt: $("prompt").value, seed: Number($("seed").value), model: $("model").value };
    for (const [name, { value }] of this.knobs) if (value() !== undefined) fields[name] = value();
    const axes = ["down", "across"].map((axis) => ({
      field: $(axis).value,
      values: [...new Set(numbers($(`${axis}-values`).value))],
    }));
    return { fields, axes: axes.map((axis) => (axis.field ? axis : { field: "", values: [undefined] })) };
  }

  /** Mark the input of a field that the service refused; none if it is empty. */
  blame(field) {
    const axis = field && ["down", "across"].find((name) => $(name).value === field);
    const inputs = { prompt: $("prompt"), seed: $("seed"), model: $("model") };
    const blamed = axis ? $(`${axis}-values`) : inputs[field] ?? this.knobs.get(field)?.input;
    for (const input of $("request").querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    blamed?.setAttribute("aria-invalid", "true");
    const details = blamed?.closest("details");
    if (details) details.open = true;
  }

  /** Take values from an address; what it does not have gets its default. */
  read(address) {
    for (const name of ["prompt", "seed", "model"]) $(name).value = address.get(name) ?? "";
    if (!$("model").value) $("model").selectedIndex = 0;
    if (!$("prompt").value) $("prompt").value = this.schema.prompt.examples?.[0] ?? "";
    if (!$("seed").value) this.drawSeed();
    for (const [name, { set }] of this.knobs) set(address.get(name) ?? String(this.schema[name].default ?? ""));
    for (const axis of ["down", "across"]) {
      const [field, values] = (address.get(axis) ?? "").split(":");
      $(axis).value = field;
      if ($(axis).value) $(`${axis}-values`).value = values ?? "";
    }
    $("new-seed").checked = address.has("new-seed");
    $("at-once").checked = address.has("at-once");
    this.#show();
  }

  /** Put all values into the address, which then makes the same clips. */
  write() {
    const { fields } = this.request, address = new URLSearchParams();
    for (const [name, value] of Object.entries(fields))
      if (OWN.includes(name) || value !== this.schema[name].default) address.set(name, String(value));
    for (const axis of ["down", "across"])
      if ($(axis).value) address.set(axis, `${$(axis).value}:${numbers($(`${axis}-values`).value)}`);
    if (this.isSeedNew) address.set("new-seed", "");
    if ($("at-once").checked) address.set("at-once", "");
    history.replaceState(null, "", `#${address}`);
  }

  #limit(input, of) {
    for (const [attribute, value] of [["min", of.minimum], ["max", of.maximum], ["maxLength", of.maxLength]])
      if (value !== undefined) input[attribute] = value;
  }

  #addKnob(name, of, isExtra) {
    const input = this.#input(name, of, "number"), slider = document.createElement("input");
    const curve = of.maximum > 1 ? 3 : 1; // most of a wide range is seldom wanted
    const range = of.maximum - of.minimum;
    Object.assign(slider, { type: "range", min: 0, max: 1, step: "any" });
    slider.setAttribute("aria-label", `${name}, slider`);
    input.step = of.type === "integer" ? "1" : "any";
    const show = () => {
      slider.value = String(((Number(input.value) - of.minimum) / range) ** (1 / curve));
      slider.setAttribute("aria-valuetext", input.value);
    };
    slider.addEventListener("input", () => {
      const value = of.minimum + range * Number(slider.value) ** curve;
      input.value = String(of.type === "integer" ? Math.round(Number(value.toPrecision(2))) : Number(value.toPrecision(2)));
      slider.setAttribute("aria-valuetext", input.value);
    });
    input.addEventListener("input", show);
    const set = (text) => { input.value = text; show(); };
    const value = () => (input.value === "" ? of.default : Number(input.value));
    set(String(of.default));
    this.#place(name, of, { input, set, value }, [slider], isExtra);
  }

  /** A number that may be left out. */
  #addOptional(name, of) {
    const input = this.#input(name, { ...of, default: "" }, "number");
    input.step = "any";
    const value = () => (input.value === "" ? undefined : Number(input.value));
    this.#place(name, of, { input, set: (text) => { input.value = text; }, value }, [], true);
  }

  /** A sound file, which is sent to the service and from then on known by its digest. */
  #addSound(name, of) {
    const input = this.#input(name, { ...of, default: "" }, "file");
    let digest;
    input.accept = "audio/*";
    const set = (text) => {
      this.#sending = undefined;
      digest = text || undefined;
      input.value = "";
    };
    input.addEventListener("change", async () => {
      const [file] = input.files;
      digest = undefined;
      this.#sending = file;
      this.#changed();
      if (!file) return;
      try {
        const sent = await sendSound(file);
        if (this.#sending !== file) return; // another one was chosen since
        this.#sending = undefined;
        digest = sent[name];
        this.#changed();
      } catch (error) {
        if (this.#sending !== file) return;
        set("");
        this.dispatchEvent(new CustomEvent("refused", { detail: error }));
      }
    });
    this.#place(name, of, { input, set, value: () => digest }, [], true);
    input.parentNode.classList.add("text");
  }

  #addText(name, of) {
    const input = this.#input(name, of, "text");
    this.#place(name, of, { input, set: (value) => { input.value = value; }, value: () => input.value }, [], true);
    input.parentNode.classList.add("text");
  }

  #addSwitch(name, of) {
    const input = this.#input(name, of, "checkbox");
    const set = (value) => { input.checked = String(value) === "true"; };
    set(of.default);
    this.#place(name, of, { input, set, value: () => input.checked }, [], true);
  }

  #input(name, of, type) {
    const input = document.createElement("input");
    Object.assign(input, { type, id: `knob-${name}`, name });
    if (type !== "checkbox") input.value = String(of.default);
    this.#limit(input, of);
    return input;
  }

  #place(name, of, knob, others, isExtra) {
    const label = document.createElement("label"), description = document.createElement("small");
    const box = document.createElement("div");
    Object.assign(label, { htmlFor: knob.input.id, textContent: name });
    Object.assign(description, { id: `about-${name}`, textContent: of.description ?? "" });
    knob.input.setAttribute("aria-describedby", description.id);
    box.className = "knob";
    box.append(label, knob.input, ...others, description);
    (isExtra ? $("more").querySelector(".knobs") : $("knobs")).append(box);
    this.knobs.set(name, { ...knob, box });
  }

  /** Fill in values around the knob's own when a field is chosen to be varied. */
  #suggest(axis) {
    const field = $(axis).value, of = this.schema[field];
    const other = axis === "down" ? "across" : "down";
    if (field && $(other).value === field) $(other).value = "";
    if (field === "seed") {
      const seed = Number($("seed").value);
      $(`${axis}-values`).value = [seed, seed + 1, seed + 2].join(", ");
    } else if (field) {
      const at = this.knobs.get(field).value(), range = of.maximum - of.minimum;
      const around = at > of.minimum ? [0.7 * at, at, 1.3 * at] : [at, of.minimum + 0.5 * range, of.minimum + 0.9 * range];
      const rounded = around.map((value) => {
        const inside = Math.max(of.minimum, Math.min(of.maximum, value));
        return of.type === "integer" ? Math.round(inside) : Number(inside.toPrecision(2));
      });
      $(`${axis}-values`).value = [...new Set(rounded)].join(", ");
    }
    this.#changed();
  }

  #show() {
    const varied = ["down", "across"].map((axis) => $(axis).value);
    for (const axis of ["down", "across"]) $(`${axis}-values`).closest("label").hidden = !$(axis).value;
    for (const [name, { box }] of this.knobs) box.classList.toggle("varied", varied.includes(name));
  }

  #changed() {
    this.#show();
    this.write();
    this.dispatchEvent(new Event("change"));
  }
}

const numbers = (text) => text.split(/[\s,;]+/).filter(Boolean).map(Number);
