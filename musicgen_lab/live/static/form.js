// The page's form: the fields that all clips have in common, what is varied down and across, and the
// clips that were changed alone. All of it is in the page's address.
import { $ } from "./dom.js";
import { Knobs } from "./knobs.js";

const AXES = ["down", "across"];

export class Form extends Knobs {
  /** By `placeOf` a clip in the grid: what it has of its own. */
  changes = new Map();

  constructor(schema, models) {
    super($("common"), schema, models);
    for (const axis of AXES) {
      $(axis).append(new Option("nothing", ""), ...this.numeric.map((name) => new Option(name)));
      $(axis).addEventListener("change", () => this.#suggest(axis));
    }
    $("axes").addEventListener("input", () => this.changed());
    for (const id of ["new-seed", "at-once"]) $(id).addEventListener("input", () => this.changed());
    this.read(new URLSearchParams(location.hash.slice(1)));
  }

  get isSeedNew() { return $("new-seed").checked; }
  get atOnce() { return $("at-once").checked && this.hasSeed; }

  /** What is varied: a field and its values, or no field and one value. */
  get axes() {
    return AXES.map((axis) => (
      $(axis).value
        ? { field: $(axis).value, values: [...new Set(numbers($(`${axis}-values`).value))] }
        : { field: "", values: [undefined] }
    ));
  }

  /** Let the clip at a place differ from the others; not at all if there is nothing in `change`. */
  change(varied, change) {
    if (Object.keys(change).length) this.changes.set(placeOf(varied), { varied, change });
    else this.changes.delete(placeOf(varied));
    this.write();
  }

  blame(field) {
    super.blame(field);
    for (const axis of AXES) $(`${axis}-values`).removeAttribute("aria-invalid");
    const axis = field && AXES.find((name) => $(name).value === field);
    if (axis) $(`${axis}-values`).setAttribute("aria-invalid", "true");
  }

  /** Take values from an address; what it does not have gets its default. */
  read(address) {
    this.fields = Object.fromEntries(address);
    for (const axis of AXES) {
      const [field, values] = (address.get(axis) ?? "").split(":");
      $(axis).value = field;
      if ($(axis).value) $(`${axis}-values`).value = values ?? "";
    }
    this.changes = new Map(address.getAll("clip").flatMap((text) => {
      const [varied, change] = parse(text).map((fields) => this.#own(fields));
      return varied && change ? [[placeOf(varied), { varied, change }]] : [];
    }));
    $("new-seed").checked = address.has("new-seed");
    $("at-once").checked = address.has("at-once");
    this.#show();
  }

  /** Put all values into the address, which then makes the same clips. */
  write() {
    const address = new URLSearchParams();
    for (const [name, value] of Object.entries(this.fields))
      if (["prompt", "seed", "model"].includes(name) || value !== this.schema[name].default)
        address.set(name, String(value));
    for (const axis of AXES)
      if ($(axis).value) address.set(axis, `${$(axis).value}:${numbers($(`${axis}-values`).value)}`);
    for (const { varied, change } of this.changes.values())
      address.append("clip", JSON.stringify([varied, change]));
    for (const id of ["new-seed", "at-once"]) if ($(id).checked) address.set(id, "");
    history.replaceState(null, "", `#${address}`);
  }

  changed() {
    this.#show();
    this.write();
    super.changed();
  }

  /** Those of an address's fields that a request has: anybody may have written it. */
  #own(fields) {
    const isValue = (value) => value === null || ["string", "number", "boolean"].includes(typeof value);
    return Object.fromEntries(Object.entries(fields ?? {}).filter(([name, value]) => Object.hasOwn(this.schema, name) && isValue(value)));
  }

  /** Fill in values around the knob's own when a field is chosen to be varied. */
  #suggest(axis) {
    const field = $(axis).value, of = this.schema[field];
    const other = axis === "down" ? "across" : "down";
    if (field && $(other).value === field) $(other).value = "";
    if (field === "seed") {
      const { seed } = this.fields;
      $(`${axis}-values`).value = [seed, seed + 1, seed + 2].join(", ");
    } else if (field) {
      const at = this.fields[field], range = of.maximum - of.minimum;
      const around = at > of.minimum ? [0.7 * at, at, 1.3 * at] : [at, of.minimum + 0.5 * range, of.minimum + 0.9 * range];
      const rounded = around.map((value) => {
        const inside = Math.max(of.minimum, Math.min(of.maximum, value));
        return of.type === "integer" ? Math.round(inside) : Number(inside.toPrecision(2));
      });
      $(`${axis}-values`).value = [...new Set(rounded)].join(", ");
    }
    this.changed();
  }

  #show() {
    const varied = AXES.map((axis) => $(axis).value);
    for (const axis of AXES) $(`${axis}-values`).closest("label").hidden = !$(axis).value;
    for (const [name, { box }] of this.knobs) box?.classList.toggle("varied", varied.includes(name));
  }
}

/** Where in a grid a clip is, by the values that are varied. */
export const placeOf = (varied) => JSON.stringify(Object.entries(varied).sort());

const numbers = (text) => text.split(/[\s,;]+/).filter(Boolean).map(Number);

const parse = (text) => {
  try {
    const parsed = JSON.parse(text);
    return Array.isArray(parsed) ? parsed.slice(0, 2) : [];
  } catch { return []; }
};
