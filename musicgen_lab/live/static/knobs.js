// The fields of a request as inputs, whose limits and defaults come from the service's OpenAPI
// document: those of all clips in the page, and those of one clip in its dialog.
import { $, element } from "./dom.js";
import { sendSound } from "./service.js";

const isNumber = ({ type }) => type === "number" || type === "integer";
const scalar = (schema) => schema.anyOf?.find(({ type }) => type && type !== "null") ?? schema;
const OWN = ["prompt", "seed", "model"]; // with an input of their own in the template

export class Knobs extends EventTarget {
  #sending; // the sound file that is on its way to the service
  #more;
  #prefix;

  /** Put the inputs into a place; ids begin with a prefix, as the page may hold them twice. */
  constructor(place, schema, models, prefix = "") {
    super();
    this.#prefix = prefix;
    this.schema = Object.fromEntries(
      Object.entries(schema.properties).map(([name, of]) => [name, { ...of, ...scalar(of) }]),
    );
    place.replaceChildren($("fields").content.cloneNode(true));
    this.root = place;
    this.#more = place.querySelector("details");
    this.knobs = new Map();
    for (const name of OWN) this.#addOwn(name, models);
    const names = Object.keys(this.schema), later = names.slice(names.indexOf("model")); // less used
    for (const [name, of] of Object.entries(this.schema)) {
      if (OWN.includes(name)) continue;
      if (of.default === null && isNumber(of)) this.#addOptional(name, of);
      else if (of.default === null && of.pattern) this.#addSound(name, of);
      else if (isNumber(of)) this.#addKnob(name, of, later.includes(name));
      else if (of.type === "string") this.#addText(name, of);
      else if (of.type === "boolean") this.#addSwitch(name, of);
    }
    this.#more.hidden = !this.#more.querySelector(".knob");
    place.querySelector(".draw").addEventListener("click", () => { this.drawSeed(); this.changed(); });
    this.#input("seed").addEventListener("change", ({ target }) => { if (!target.value) { this.drawSeed(); this.changed(); } });
    place.addEventListener("input", () => this.changed());
  }

  get isSending() { return this.#sending !== undefined; }
  get hasSeed() { return this.#input("seed").value !== ""; }
  /** The fields that can be varied: numbers that always have a value. */
  get numeric() {
    const isVaried = (name) => isNumber(this.schema[name]) && this.schema[name].default !== null;
    return [...[...this.knobs.keys()].filter((name) => !OWN.includes(name) && isVaried(name)), "seed"];
  }

  /** The fields of the request; those without a value are left out. */
  get fields() {
    const values = [...this.knobs].map(([name, { value }]) => [name, value()]);
    return Object.fromEntries(values.filter(([, value]) => value !== undefined));
  }

  /** Take values; what they do not have gets its default. */
  set fields(values) {
    for (const [name, { set }] of this.knobs) set(String(values[name] ?? this.schema[name].default ?? ""));
  }

  newSeed() { return crypto.getRandomValues(new Uint32Array(1))[0] % (this.schema.seed.maximum + 1); }

  drawSeed() { this.#input("seed").value = String(this.newSeed()); }

  /** Mark the input of a field that the service refused; none if it is empty. */
  blame(field) {
    for (const input of this.root.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    const blamed = this.knobs.get(field)?.input;
    blamed?.setAttribute("aria-invalid", "true");
    if (blamed && this.#more.contains(blamed)) this.#more.open = true;
  }

  changed() { this.dispatchEvent(new Event("change")); }

  #input(name) { return this.knobs.get(name).input; }

  #addOwn(name, models) {
    const input = this.root.querySelector(`[name="${name}"]`), { examples, minimum } = this.schema[name];
    this.#limit(input, this.schema[name]);
    if (name === "model") for (const model of models) input.append(new Option(model.split("@")[0], model.split("@")[0]));
    const set = {
      prompt: (text) => { input.value = text || (examples?.[0] ?? ""); },
      seed: (text) => { input.value = text; if (!input.value) this.drawSeed(); },
      model: (text) => { input.value = text; if (!input.value) input.selectedIndex = 0; },
    }[name];
    this.knobs.set(name, { input, set, value: () => (minimum === undefined ? input.value : Number(input.value)) });
  }

  #limit(input, of) {
    for (const [attribute, value] of [["min", of.minimum], ["max", of.maximum], ["maxLength", of.maxLength]])
      if (value !== undefined) input[attribute] = value;
  }

  #addKnob(name, of, isExtra) {
    const input = this.#make(name, of, "number"), slider = document.createElement("input");
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
    const input = this.#make(name, { ...of, default: "" }, "number");
    input.step = "any";
    const value = () => (input.value === "" ? undefined : Number(input.value));
    this.#place(name, of, { input, set: (text) => { input.value = text; }, value }, [], true);
  }

  /** A sound file, which is sent to the service and from then on known by its digest. */
  #addSound(name, of) {
    const input = this.#make(name, { ...of, default: "" }, "file");
    const remove = element("button", "", "Remove"), sent = element("span", "sent", ["", remove]);
    let digest;
    input.accept = "audio/*";
    remove.setAttribute("aria-label", `Remove the sound of ${name}`);
    const show = () => {
      sent.hidden = !digest;
      sent.firstChild.data = input.files.length ? "" : `The sound ${digest?.slice(0, 8)}… `;
    };
    const set = (text) => {
      this.#sending = undefined;
      digest = text || undefined;
      input.value = "";
      show();
    };
    remove.addEventListener("click", () => { set(""); this.changed(); });
    input.addEventListener("change", async () => {
      const [file] = input.files;
      digest = undefined;
      this.#sending = file;
      show();
      this.changed();
      if (!file) return;
      try {
        const answer = await sendSound(file);
        if (this.#sending !== file) return; // another one was chosen since
        this.#sending = undefined;
        digest = answer[name];
        show();
        this.changed();
      } catch (error) {
        if (this.#sending !== file) return;
        set("");
        this.dispatchEvent(new CustomEvent("refused", { detail: error }));
      }
    });
    set("");
    this.#place(name, of, { input, set, value: () => digest }, [sent], true);
    input.parentNode.classList.add("text");
  }

  #addText(name, of) {
    const input = this.#make(name, of, "text");
    this.#place(name, of, { input, set: (value) => { input.value = value; }, value: () => input.value }, [], true);
    input.parentNode.classList.add("text");
  }

  #addSwitch(name, of) {
    const input = this.#make(name, of, "checkbox");
    const set = (value) => { input.checked = String(value) === "true"; };
    set(of.default);
    this.#place(name, of, { input, set, value: () => input.checked }, [], true);
  }

  #make(name, of, type) {
    const input = document.createElement("input");
    Object.assign(input, { type, id: `${this.#prefix}knob-${name}`, name });
    if (type !== "checkbox") input.value = String(of.default);
    this.#limit(input, of);
    return input;
  }

  #place(name, of, knob, others, isExtra) {
    const label = document.createElement("label"), description = document.createElement("small");
    const box = document.createElement("div");
    Object.assign(label, { htmlFor: knob.input.id, textContent: name });
    Object.assign(description, { id: `${this.#prefix}about-${name}`, textContent: of.description ?? "" });
    knob.input.setAttribute("aria-describedby", description.id);
    box.className = "knob";
    box.append(label, knob.input, ...others, description);
    (isExtra ? this.#more : this.root).querySelector(".knobs").append(box);
    this.knobs.set(name, { ...knob, box });
  }
}
