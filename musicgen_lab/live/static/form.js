// The page's form: the fields that all clips have in common, what is varied down and across, and the
// clips that were changed alone. All of it is in the page's address.
import { $ } from "./dom.js";
import { Knobs } from "./knobs.js";
import { Refused } from "./service.js";

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
    return AXES.map((axis) => {
      const field = $(axis).value, text = $(`${axis}-values`).value;
      return field
        ? { field, text, values: [...new Set(words(text, /[\s,;]+/).map(Number))] }
        : { field, values: [undefined] };
    });
  }

  /** Throw what is wrong with the values of an axis as they are typed; the service gets numbers. */
  checkAxes() {
    for (const axis of this.axes.filter(({ field }) => field)) {
      const detail = this.#faultOf(axis);
      if (detail) throw new Refused(422, { detail, field: axis.field });
    }
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
      const [field, ...values] = (address.get(axis) ?? "").split(":");
      $(axis).value = field;
      if ($(axis).value) $(`${axis}-values`).value = values.join(":");
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
      if ($(axis).value) address.set(axis, `${$(axis).value}:${$(`${axis}-values`).value}`);
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

  #faultOf({ field, text, values }) {
    if (!values.length) return `Type the values of ${field}, separated by commas.`;
    if (values.some(Number.isNaN)) return `The values of ${field} must be numbers, separated by commas.`;
    const { type, minimum, maximum } = this.schema[field];
    for (const word of type === "number" ? words(text, /[\s;]+/) : []) {
      const [, first, second] = word.match(/^(\d+),(\d+)$/) ?? []; // a decimal comma, as the command takes it
      const isOutside = [first, second].some((part) => Number(part) < minimum || Number(part) > maximum);
      if (first === "0" || isOutside)
        return `${word} reads as the values ${first} and ${second} of ${field}. If ${first}.${second} is meant, write it with a point; if both values are, with a space: ${first}, ${second}.`;
    }
    return "";
  }

  #show() {
    const varied = AXES.map((axis) => $(axis).value);
    for (const axis of AXES) $(`${axis}-values`).closest("label").hidden = !$(axis).value;
    for (const [name, { box }] of this.knobs) box?.classList.toggle("varied", varied.includes(name));
  }
}

/** Where in a grid a clip is, by the values that are varied. */
export const placeOf = (varied) => JSON.stringify(Object.entries(varied).sort());

const words = (text, between) => text.split(between).filter(Boolean);

const parse = (text) => {
  try {
    const parsed = JSON.parse(text);
    return Array.isArray(parsed) ? parsed.slice(0, 2) : [];
  } catch { return []; }
};
