// The live page: cells that are filled while their clips are made.
import { Form } from "./form.js";
import { Picture } from "./picture.js";
import { Refused, cancel, decode, get, make, post, useKey } from "./service.js";
import { GrowingSound } from "./sound.js";

const $ = (id) => document.getElementById(id);
const PLAN_AFTER_MS = 250;
const STREAMS_MAX = 3; // of the six connections that a browser opens to a host

const element = (tag, className = "", content = []) => {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...[content].flat());
  if (tag === "button") made.type = "button";
  return made;
};
const signature = (fields) => JSON.stringify(Object.entries(fields).sort());
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const words = (s) => (s < 90 ? `${Math.max(1, Math.round(s))} s` : `${Math.round(s / 60)} min`);

/** One cell: a request, its sound as far as it is made, and what is shown of it. */
class Cell {
  constructor(fields, label, width, scale) {
    Object.assign(this, { fields, label, state: "new", sound: new GrowingSound() });
    this.canvas = Object.assign(element("canvas"), { width, height: 192 });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `Mel spectrogram: ${label}`);
    this.player = element("clip-player", "", this.canvas);
    this.player.media = this.sound;
    Object.assign(this.player.dataset, { label, length: "0" });
    this.progress = element("progress");
    this.progress.setAttribute("aria-label", `Progress of ${label}`);
    this.text = element("span", "state");
    this.again = element("button", "again", "Another seed");
    this.again.setAttribute("aria-label", `Another seed: make ${label} again`);
    this.again.addEventListener("click", () => page.remake(this));
    this.chosen = Object.assign(element("input"), { type: "checkbox", checked: true });
    this.chosen.setAttribute("aria-label", `keep ${label}`);
    this.chosen.addEventListener("change", () => page.showKeep());
    this.keep = element("label", "", [this.chosen, " keep"]);
    this.actions = element("span", "actions", [this.again, this.keep]);
    const caption = element("figcaption", "", [element("span", "label", label), this.text, this.actions]);
    this.figure = element("figure", "cell", [this.player, this.progress, caption]);
    this.picture = new Picture(this.canvas, this.sound, scale);
    this.show();
  }

  get isUnderWay() { return this.state === "waiting" || this.state === "making"; }

  take(event) {
    if (event.type === "started") this.request = event.request;
    if (event.type === "progress") {
      this.state = "making";
      Object.assign(this, { done: event.steps_done, steps: event.steps });
    }
    if (event.type === "sound") {
      this.sound.add(decode(event.pcm), event.sample_rate, event.channels, event.frames);
      this.drawSoon();
    }
    if (event.type === "clip") {
      Object.assign(this, { state: "done", clip: event });
      this.sound.complete = true;
      page.matchLoudness(this);
      this.drawSoon();
    }
    if (event.type === "failed") this.fail(event.detail);
    this.show();
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.picture.draw();
      this.player.grow(Float32Array.from(this.sound.peaks), this.sound.duration);
    });
  }

  fail(problem) {
    if (!this.isUnderWay) return;
    Object.assign(this, { state: "failed", problem });
    this.sound.complete = true; // there is no more of it
    this.drawSoon();
    this.show();
  }

  show() {
    const { state, done, steps } = this;
    this.figure.classList.toggle("failed", state === "failed");
    this.progress.hidden = !this.isUnderWay;
    if (steps) Object.assign(this.progress, { max: steps, value: done });
    const notes = [`seed ${this.request?.seed ?? this.fields.seed}`, ...(this.clip?.warnings ?? [])];
    this.text.textContent = {
      new: "not made yet", waiting: "waiting", making: `step ${done} of ${steps}`,
      done: notes.join("; "), failed: this.problem,
    }[state];
    this.again.hidden = this.isUnderWay || state === "new";
    this.keep.hidden = state !== "done";
  }
}

class Page {
  constructor(form) {
    this.form = form;
    this.cells = new Map(); // by signature of the request
    this.streams = new Set();
    this.waiting = [];
    form.addEventListener("change", () => { this.changed = true; this.planSoon(); });
    form.addEventListener("refused", ({ detail }) => this.refuse(detail));
    $("request").addEventListener("submit", (event) => { event.preventDefault(); this.makeAll(); });
    $("stop").addEventListener("click", () => this.stop());
    $("keep-clips").addEventListener("click", () => this.keep());
    document.addEventListener("change", ({ target }) => {
      if (target.name === "loudness") for (const cell of this.cells.values()) this.matchLoudness(cell);
    });
    addEventListener("hashchange", () => { this.changed = false; form.read(new URLSearchParams(location.hash.slice(1))); this.planSoon(); });
    this.planSoon();
  }

  /** What the form asks for: rows of cells with their requests and labels. */
  layout() {
    const { fields, axes: [down, across] } = this.form.request;
    const rows = down.values.map((first) => across.values.map((second) => {
      const varied = { ...(down.field && { [down.field]: first }), ...(across.field && { [across.field]: second }) };
      const label = Object.entries(varied).map((pair) => pair.join(" ")).join(", ") || "the clip";
      return { fields: { ...fields, ...varied }, label };
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
    const { down, across, all } = this.layout(), empty = [down, across].find(({ values }) => !values.length);
    const turn = this.turn = Symbol();
    try {
      if (this.form.isSending) {
        $("plan").textContent = "The sound file is being sent.";
        return;
      }
      if (empty) throw new Refused(422, { detail: `Type the values of ${empty.field}, separated by commas.`, field: empty.field });
      const plan = await post("live/plan", requestsOf(all));
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
    if (this.form.isSeedNew) { this.form.drawSeed(); this.form.write(); }
    const layout = this.layout();
    if (this.form.isSending || !layout.all.length) return;
    this.changed = false;
    const scale = Math.max(...layout.all.map(({ fields }) => fields.duration));
    if (scale !== this.scale) this.cells = this.dropped([]);
    this.scale = scale;
    const width = layout.across.values.length > 4 ? 240 : 480;
    const wanted = new Map();
    for (const { fields, label } of layout.all) {
      const key = signature(fields);
      wanted.set(key, this.cells.get(key) ?? new Cell(fields, label, width, scale));
    }
    this.cells = this.dropped(wanted);
    this.draw(layout);
    this.start([...wanted.values()].filter(({ state }) => ["new", "failed"].includes(state)));
  }

  /** Free the rows of cells that are not wanted any more. */
  dropped(wanted) {
    const kept = new Map(wanted);
    for (const [key, cell] of this.cells) if (!kept.has(key)) this.cancel(cell);
    return kept;
  }

  cancel(cell) {
    this.waiting = this.waiting.filter((other) => other !== cell);
    if (!cell.isUnderWay) return;
    cell.unwanted = true;
    if (cell.stream) cancel(cell.stream, cell.number);
  }

  /** Make one cell alone, with another seed. */
  remake(cell) {
    const fields = { ...cell.fields, seed: this.form.newSeed() };
    const fresh = new Cell(fields, cell.label, cell.canvas.width, this.scale);
    this.cells = new Map([...this.cells].map(([key, other]) => (other === cell ? [signature(fields), fresh] : [key, other])));
    const focused = cell.figure.contains(document.activeElement);
    cell.figure.replaceWith(fresh.figure);
    this.start([fresh]);
    if (focused) fresh.player.button.focus();
  }

  start(cells) {
    if (cells.length) this.say("");
    for (let cell of cells) {
      if (cell.state === "failed") { // a clip that was broken off begins anew
        const fresh = new Cell(cell.fields, cell.label, cell.canvas.width, this.scale);
        cell.figure.replaceWith(fresh.figure);
        this.cells.set(signature(cell.fields), fresh);
        cell = fresh;
      }
      cell.state = "waiting";
      cell.show();
      this.waiting.push(cell);
    }
    this.pump();
  }

  async pump() {
    this.showKeep();
    $("stop").disabled = !this.waiting.length && !this.streams.size;
    if (!this.waiting.length || this.streams.size >= STREAMS_MAX) return;
    const cells = this.waiting.splice(0), stop = new AbortController();
    this.streams.add(stop);
    $("stop").disabled = false;
    try {
      await make(requestsOf(cells), (event) => this.take(event, cells), stop.signal);
    } catch (error) {
      const stopped = error.name === "AbortError";
      for (const cell of cells) cell.fail(stopped ? "stopped" : "not finished");
      if (!stopped) this.complain(error);
    } finally {
      this.streams.delete(stop);
      this.pump();
    }
  }

  take(event, cells) {
    if (event.type === "stream") for (const [number, cell] of cells.entries()) {
      Object.assign(cell, { number, stream: event.id });
      if (cell.unwanted) cancel(event.id, number);
    } else if (event.type !== "end") cells[event.cell].take(event);
    if (event.type === "clip") this.showKeep();
  }

  stop() {
    for (const cell of this.waiting.splice(0)) cell.fail("stopped");
    for (const stream of this.streams) stream.abort();
  }

  draw({ down, across, rows }) {
    const figure = ({ fields }) => this.cells.get(signature(fields)).figure;
    const section = $("cells");
    section.dataset.duration = this.scale;
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
          head(down, down.values[number], "row"), ...row.map((cell) => element("td", "", figure(cell))),
        ]));
      grid = element("div", "listening-scroll", table);
      grid.tabIndex = 0;
      grid.setAttribute("role", "region");
      grid.setAttribute("aria-label", `Clips: ${down.field} down, ${across.field} across`);
    } else grid = element("ul", "listening-list", rows.flat().map((cell) => element("li", "", figure(cell))));
    const [keys, comparison] = [".listening-keys", ".comparison"].map((name) => section.querySelectorAll(name));
    section.replaceChildren(...(this.canMatch ? [loudness(section)] : []), ...keys, grid, ...comparison);
  }

  matchLoudness(cell) {
    const matched = document.querySelector('input[name="loudness"]:checked')?.value === "matched";
    cell.sound.gain = matched && cell.clip ? 10 ** ((cell.clip.matched_gain_db ?? 0) / 20) : 1;
  }

  get kept() { return [...this.cells.values()].filter(({ state, chosen }) => state === "done" && chosen.checked); }

  showKeep() {
    $("keep").hidden = !this.canKeep || ![...this.cells.values()].some(({ state }) => state === "done");
    $("keep-clips").disabled = !this.kept.length;
    $("keep-clips").textContent = `Keep ${plural(this.kept.length, "clip")}`;
  }

  /** Store the chosen clips as a run folder, and say how to make them again. */
  async keep() {
    $("keep-clips").disabled = true;
    try {
      const run = await post("live/kept", requestsOf(this.kept.map(({ request }) => ({ fields: request }))));
      const link = (text, href) => Object.assign(element("a", "", text), { href });
      const report = element("span", "", "The report is being made.");
      const code = (name, text) => {
        const made = element("pre", "", text);
        Object.assign(made, { tabIndex: 0, ariaLabel: name, role: "region" });
        return made;
      };
      const download = link("Download it as a zip file", run.zip);
      download.download = "";
      $("kept").replaceChildren(
        element("p", "", ["Kept in ", element("code", "", run.folder), ". ", report, " ", download, "."]),
        element("p", "", "To make the same clips again:"),
        ...(run.command ? [code("Command", run.command)] : []), code("Python", run.python),
      );
      this.watchReport(run, report, link);
    } catch (error) { this.complain(error); }
    this.showKeep();
  }

  async watchReport(run, place, link) {
    const { report, detail } = await get(run.state).catch(({ message }) => ({ report: "failed", detail: message }));
    if (report === "making") await this.watchReport(run, place, link); // it was waited for a while
    else place.replaceChildren(report === "made" ? link("Open the report", run.report) : `There is no report: ${detail}.`, ".");
  }

  /** Say that something cannot be taken; the rest of the form stays as it is. */
  async refuse(problem) {
    this.changed = false;
    await this.plan();
    this.complain(problem);
  }

  say(text) { $("problem").textContent = text; this.form.blame(""); }

  complain(error) {
    const gone = "The service cannot be reached. What was made stays here; when it runs again, press Make for the rest.";
    $("key-question").hidden = error.status !== 401;
    $("problem").textContent = error instanceof Refused ? error.message : gone;
    this.form.blame(error.field);
  }
}

/** Requests as the service takes them: what they have in common, and the rest of each. */
function requestsOf(cells) {
  const [first, ...others] = cells.map(({ fields }) => fields);
  const isCommon = ([name, value]) => others.every((fields) => fields[name] === value);
  const fields = Object.fromEntries(Object.entries(first).filter(isCommon));
  return {
    fields,
    cells: cells.map((cell) => Object.fromEntries(Object.entries(cell.fields).filter(([name]) => !(name in fields)))),
  };
}

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
    const [document, { models, keep, match }] = await Promise.all([get("openapi.json"), get("live/about")]);
    page = new Page(new Form(document.components.schemas.GenerationRequest, models));
    Object.assign(page, { canKeep: keep, canMatch: match });
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
