// The live page: cells that are filled while their clips are made.
import { Cell, Wanted } from "./cell.js";
import { askForFields } from "./dialogs.js";
import { $, element, plural } from "./dom.js";
import { Form } from "./form.js";
import { Kept } from "./kept.js";
import { Refused, cancel, get, make, post, reasonOf, requestsOf, useKey } from "./service.js";

const PLAN_AFTER_MS = 250;
const STREAMS_MAX = 3; // of the six connections that a browser opens to a host

const words = (s) => (s < 90 ? `${Math.max(1, Math.round(s))} s` : `${Math.round(s / 60)} min`);

class Page {
  constructor(form, kept, about) {
    Object.assign(this, { form, kept, about, cells: [], streams: new Set(), waiting: [] });
    form.addEventListener("change", () => { this.changed = true; this.planSoon(); });
    form.addEventListener("refused", ({ detail }) => this.refuse(detail));
    $("request").addEventListener("submit", (event) => { event.preventDefault(); this.makeAll(); });
    $("stop").addEventListener("click", () => this.stop());
    document.addEventListener("change", ({ target }) => {
      if (target.name === "loudness") for (const cell of this.cells) this.matchLoudness(cell);
    });
    addEventListener("hashchange", () => { this.changed = false; form.read(new URLSearchParams(location.hash.slice(1))); this.planSoon(); });
    this.planSoon();
  }

  /** What the form asks for: rows of clips. */
  layout() {
    const { fields, axes: [down, across], changes } = this.form;
    const rows = down.values.map((first) => across.values.map((second) => {
      const varied = { ...(down.field && { [down.field]: first }), ...(across.field && { [across.field]: second }) };
      const wanted = new Wanted(fields, varied);
      const changed = !wanted.isAlone && changes.get(wanted.place);
      return changed ? new Wanted(fields, varied, changed.change) : wanted;
    }));
    return { down, across, rows, all: rows.flat() };
  }

  planSoon() {
    clearTimeout(this.planning);
    if (this.form.isSending) $("make").disabled = true;
    this.planning = setTimeout(() => this.plan(), PLAN_AFTER_MS);
  }

  /** Say how many clips there will be and how long they take, or what is wrong. */
  async plan() {
    clearTimeout(this.planning);
    const { all } = this.layout();
    const turn = this.turn = Symbol();
    try {
      if (this.form.isSending) {
        $("plan").textContent = "The sound file is being sent.";
        return;
      }
      this.form.checkAxes();
      const plan = await post("live/plan", requestsOf(all.map(({ fields }) => fields)));
      if (this.turn !== turn) return; // there is a newer one
      const time = plan.estimate_s === null ? "the time is unknown until a clip is made" : `about ${words(plan.estimate_s)}`;
      $("plan").textContent = `${plural(plan.clips, "clip")}, ${Number(plan.audio_s.toFixed(1))} s of sound, ${time}.`;
      this.say([...new Set(plan.warnings)].join(" "));
      $("make").disabled = false;
      if (this.form.atOnce && this.changed) this.makeAll(); // never because an address says so
    } catch (error) {
      if (this.turn !== turn) return;
      $("plan").textContent = "";
      $("make").disabled = error instanceof Refused && error.status === 422;
      this.complain(error);
    }
  }

  /** Make the clips that the form asks for and that are not there yet. */
  makeAll() {
    if (this.form.isSending) return;
    try {
      this.form.checkAxes();
    } catch (error) {
      this.complain(error);
      return;
    }
    if (this.form.isSeedNew) { this.form.drawSeed(); this.form.write(); }
    const layout = this.layout();
    this.changed = false;
    const old = [...this.cells], width = layout.across.values.length > 4 ? 240 : 480;
    const reused = ({ signature }) => {
      const at = old.findIndex((cell) => cell.wanted.signature === signature);
      return at < 0 ? undefined : old.splice(at, 1)[0];
    };
    this.scale = scaleOf(layout.all);
    this.cells = layout.all.map((wanted) => {
      const cell = reused(wanted);
      if (cell) Object.assign(cell, { width }).showAs(wanted);
      return cell ?? this.newCell(wanted, width);
    });
    for (const cell of old) this.cancel(cell);
    this.draw(layout);
    this.start(this.cells.filter(({ state }) => ["new", "failed"].includes(state)));
  }

  newCell(wanted, width) {
    const cell = new Cell(wanted, width, this.scale);
    cell.addEventListener("again", () => this.drawAnotherSeed(cell));
    cell.addEventListener("change", () => askForFields(cell, this.about, (fields) => this.remake(cell, cell.wanted.with(fields))));
    cell.addEventListener("undo", () => this.remake(cell, cell.wanted.unchanged));
    cell.addEventListener("choose", () => this.showKept());
    cell.addEventListener("done", () => { this.matchLoudness(cell); this.showKept(); });
    return cell;
  }

  /** Free the row of a cell that is not wanted any more. */
  cancel(cell) {
    this.waiting = this.waiting.filter((other) => other !== cell);
    if (!cell.isUnderWay) return;
    cell.unwanted = true;
    if (cell.stream) cancel(cell.stream, cell.number);
  }

  drawAnotherSeed(cell) {
    if (cell.wanted.isAlone) {
      this.form.drawSeed();
      this.form.write();
      this.makeAll();
    } else this.remake(cell, cell.wanted.with({ ...cell.fields, seed: this.form.newSeed() }));
  }

  /** Make one cell alone, as it is wanted now; the others stay. */
  remake(cell, wanted) {
    if (wanted.signature === cell.wanted.signature) return;
    this.form.change(wanted.varied, wanted.change);
    const fresh = this.replace(cell, wanted);
    this.scale = scaleOf(this.cells.map((one) => one.wanted));
    this.start([fresh]);
    this.planSoon();
  }

  /** Put a new cell in the place of another one. */
  replace(cell, wanted) {
    const fresh = this.newCell(wanted, cell.canvas.width), isFocused = cell.figure.contains(document.activeElement);
    this.cells = this.cells.map((other) => (other === cell ? fresh : other));
    cell.figure.replaceWith(fresh.figure);
    fresh.player.replace(cell.player);
    if (isFocused) fresh.player.button.focus();
    return fresh;
  }

  start(cells) {
    if (cells.length) this.say("");
    for (const cell of cells) {
      const begun = cell.state === "failed" ? this.replace(cell, cell.wanted) : cell; // broken off: anew
      begun.start();
      this.waiting.push(begun);
    }
    this.pump();
  }

  async pump() {
    this.showKept();
    $("stop").disabled = !this.waiting.length && !this.streams.size;
    if (!this.waiting.length || this.streams.size >= STREAMS_MAX) return;
    const cells = this.waiting.splice(0), stop = new AbortController();
    this.streams.add(stop);
    $("stop").disabled = false;
    try {
      await make(requestsOf(cells.map(({ fields }) => fields)), (event) => this.receive(event, cells), stop.signal);
    } catch (error) {
      const stopped = error.name === "AbortError";
      for (const cell of cells) cell.fail(stopped ? "stopped" : "not finished");
      if (!stopped) this.complain(error);
    } finally {
      this.streams.delete(stop);
      this.pump();
    }
  }

  receive(event, cells) {
    if (event.type === "stream") for (const [number, cell] of cells.entries()) {
      Object.assign(cell, { number, stream: event.id });
      if (cell.unwanted) cancel(event.id, number);
    } else if (event.type !== "end") cells[event.cell].receive(event);
  }

  stop() {
    for (const cell of this.waiting.splice(0)) cell.fail("stopped");
    for (const stream of this.streams) stream.abort();
  }

  /** The seconds from one edge of a picture to the other. */
  get scale() { return Number($("cells").dataset.duration); }
  set scale(seconds) {
    $("cells").dataset.duration = seconds;
    for (const cell of this.cells) cell.scale = seconds;
  }

  draw({ down, across, rows }) {
    const section = $("cells"), figures = this.cells.map(({ figure }) => figure).values();
    let grid;
    if (down.field && across.field) {
      const head = (axis, value, scope) => {
        const made = element("th", "", [`${axis.field} `, element("b", "", String(value))]);
        made.scope = scope;
        return made;
      };
      const table = element("table", across.values.length > 6 ? "listening-grid dense" : "listening-grid");
      table.style.setProperty("--columns", across.values.length);
      table.append(element("tr", "", [element("td"), ...across.values.map((value) => head(across, value, "col"))]));
      for (const [number, row] of rows.entries())
        table.append(element("tr", "", [
          head(down, down.values[number], "row"), ...row.map(() => element("td", "", figures.next().value)),
        ]));
      grid = element("div", "listening-scroll", table);
      grid.tabIndex = 0;
      grid.setAttribute("role", "region");
      grid.setAttribute("aria-label", `Clips: ${down.field} down, ${across.field} across`);
    } else grid = element("ul", "listening-list", [...figures].map((figure) => element("li", "", figure)));
    const [keys, comparison] = [".listening-keys", ".comparison"].map((name) => section.querySelectorAll(name));
    section.replaceChildren(...(this.about.match ? [loudness(section)] : []), ...keys, grid, ...comparison);
  }

  matchLoudness(cell) {
    const matched = document.querySelector('input[name="loudness"]:checked')?.value === "matched";
    cell.sound.gain = matched && cell.clip ? 10 ** ((cell.clip.matched_gain_db ?? 0) / 20) : 1;
  }

  showKept() {
    const done = this.cells.filter(({ state }) => state === "done");
    this.kept.offer(done.filter(({ chosen }) => chosen.checked).map(({ request }) => request), done.length > 0);
  }

  /** Say that something cannot be taken; the rest of the form stays as it is. */
  async refuse(problem) {
    this.changed = false;
    await this.plan();
    this.complain(problem);
  }

  say(text) { $("problem").textContent = text; this.form.blame(""); }

  complain(error) {
    $("key-question").hidden = error.status !== 401;
    $("problem").textContent = reasonOf(error);
    this.form.blame(error.field);
  }
}

const scaleOf = (all) => Math.max(...all.map(({ fields }) => fields.duration));

function loudness(section) {
  const there = section.querySelector(".loudness");
  if (there) return there;
  const choice = (value, text) => {
    const input = Object.assign(element("input"), { type: "radio", name: "loudness", value, checked: value === "made" });
    return element("label", "", [input, ` ${text}`]);
  };
  return element("fieldset", "loudness", [
    element("legend", "", "Play"), choice("made", "as made"), choice("matched", "loudness-matched"),
  ]);
}

let page;
async function open() {
  try {
    const [document, about] = await Promise.all([get("openapi.json"), get("live/about")]);
    const schema = document.components.schemas.GenerationRequest;
    const kept = new Kept(about.keep === "folder", (error) => page.complain(error));
    page = new Page(new Form(schema, about.models), kept, { ...about, schema });
  } catch (error) {
    $("problem").textContent = `The page could not be set up: ${error.message}`;
  }
}
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("use-key").click();
});
$("use-key").addEventListener("click", () => { useKey($("key").value); $("key-question").hidden = true; page.planSoon(); });
open();
