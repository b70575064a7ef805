// <clip-player> is a clip's picture as its timeline, its waveform, and a button that plays it. It
// holds the picture and an <audio>, which plays without this script too, or is given another `media`
// with the same properties and events. Its attributes: data-label, data-length in seconds, and
// data-peaks, the waveform's heights as bytes in base64. The time axis of all pictures of a page is
// data-duration of the .listening around them.
const STEP_S = 1;
const NONCE = document.currentScript?.nonce ?? "";
const seconds = (value) => `${value.toFixed(1)} s`;

const element = (tag, className, content = []) => {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...[content].flat());
  if (tag === "button") made.type = "button";
  return made;
};

class ClipPlayer extends HTMLElement {
  connectedCallback() {
    if (!this.isConnected) return;
    if (document.readyState === "loading") { // what is inside it may be yet to come
      document.addEventListener("DOMContentLoaded", () => this.connectedCallback(), { once: true });
      return;
    }
    if (this.button) this.show(); // its label may be another one
    else this.build();
    visible.observe(this);
  }

  disconnectedCallback() {
    visible.unobserve(this);
    this.media?.pause();
    this.wave?.destroy();
    this.wave = undefined;
    queueMicrotask(() => { if (!this.isConnected) this.comparison?.exchange(this); }); // not if it moved
  }

  /** Be compared where another one was. */
  replace(other) { other.comparison?.exchange(other, this); }

  build() {
    const picture = this.querySelector("img, canvas");
    this.media ??= this.querySelector("audio");
    this.media.removeAttribute?.("controls");
    this.length = Number(this.dataset.length);
    this.peaks = Float32Array.from(atob(this.dataset.peaks ?? ""), (byte) => byte.charCodeAt(0) / 255);
    this.peak = Math.max(0, ...this.peaks);
    this.playhead = element("i", "playhead");
    this.waveform = element("div", "waveform");
    this.timeline = element("div", "timeline");
    this.position = element("span", "position");
    this.whole = element("span", "whole");
    this.button = element("button", "play", element("span", "time", [this.position, this.whole]));
    this.mark = element("button", "mark", "A/B");
    picture.before(this.timeline);
    this.timeline.append(picture, this.waveform, this.playhead);
    this.timeline.after(element("div", "controls", [this.button, this.mark]));
    this.timeline.addEventListener("click", (event) => this.seek(event));
    this.button.addEventListener("click", () => this.toggle());
    this.mark.addEventListener("click", () => Comparison.of(this).mark(this));
    this.addEventListener("keydown", (event) => this.press(event));
    for (const name of ["play", "pause", "timeupdate", "seeking", "ended"])
      this.media.addEventListener(name, () => this.show());
    this.media.addEventListener("play", () => pauseOthers(this.media));
    tellKeys(this.root);
    this.show();
  }

  get root() { return this.closest(".listening"); }
  /** The seconds from one edge of the picture to the other. */
  get scale() { return Number(this.root?.dataset.duration) || this.length || 1; }
  /** The level that is as high as a waveform's half: the highest of all clips of the page. */
  get level() { return Math.max(0, ...players(this).map((player) => player.peak ?? 0)) || 1; }
  get playing() { return !this.media.paused; }
  get at() { return this.media.ended ? 0 : this.media.currentTime; }

  /** Show what there is of a clip that is being made. */
  grow(peaks, length) {
    const peak = Math.max(0, ...peaks), isHighest = peak > this.level;
    Object.assign(this, { peaks, peak, length });
    if (isHighest) for (const { wave } of players(this)) wave?.setOptions({ maxPeak: peak });
    if (this.wave) this.wave.load("", [peaks], length).catch(() => {});
    else if (this.isVisible) this.draw();
    this.show();
  }

  draw() {
    if (this.wave || !this.isConnected || !this.peaks.length) return;
    this.wave = WaveSurfer.create({
      container: this.waveform, media: this.media, peaks: [this.peaks], duration: this.length,
      height: 32, interact: false, cursorWidth: 0, hideScrollbar: true, cspNonce: NONCE,
      normalize: true, maxPeak: this.level, ...this.colours(),
    });
  }

  colours() {
    const ink = (of) => getComputedStyle(of).color;
    return { waveColor: ink(this.waveform), progressColor: ink(this.playhead) };
  }

  show() {
    const { at, length, scale, playing } = this, name = this.dataset.label;
    this.button.setAttribute("aria-label", `Play ${name}, ${Number(length.toFixed(2))} s`);
    this.button.setAttribute("aria-pressed", String(playing));
    this.button.classList.toggle("playing", playing);
    this.mark.setAttribute("aria-label", `${this.mark.textContent}: compare ${name}`);
    this.position.textContent = at ? at.toFixed(1) : "";
    this.whole.textContent = at ? ` / ${seconds(length)}` : seconds(length);
    this.waveform.style.width = `${Math.min(100, (100 * length) / scale)}%`;
    this.playhead.style.left = `${(100 * at) / scale}%`;
    this.playhead.hidden = !at;
  }

  play() { this.media.play().catch(() => this.show()); }
  toggle() { if (this.playing) this.media.pause(); else this.play(); }

  playFrom(at) {
    this.media.currentTime = Math.max(0, Math.min(at, this.length));
    this.show();
    if (!this.playing) this.play();
  }

  seek(event) {
    const box = this.timeline.getBoundingClientRect();
    this.playFrom(((event.clientX - box.left) / box.width) * this.scale);
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const keys = {
      ArrowLeft: () => this.playFrom(this.at - STEP_S),
      ArrowRight: () => this.playFrom(this.at + STEP_S),
      ArrowUp: () => this.step(-1),
      ArrowDown: () => this.step(1),
      Home: () => this.playFrom(0),
      Escape: () => this.media.pause(),
      a: () => Comparison.of(this).mark(this),
      x: () => Comparison.of(this).switch(),
    };
    const action = keys[event.key.length > 1 ? event.key : event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  /** Go to the next clip or the one before; what plays goes on there at the same moment. */
  step(by) {
    const all = players(this), other = all[all.indexOf(this) + by];
    if (!other) return;
    other.button.focus();
    if (this.playing) other.playFrom(this.at);
  }
}

/** Two clips of a page, A and B, between which one switches at the same moment. */
class Comparison {
  static #all = new WeakMap();

  static of(player) {
    const { root } = player;
    if (!Comparison.#all.has(root)) Comparison.#all.set(root, new Comparison(root));
    return Comparison.#all.get(root);
  }

  constructor(root) {
    this.clips = [];
    this.names = element("span", "names");
    const button = (text, action) => {
      const made = element("button", "", text);
      made.addEventListener("click", action);
      return made;
    };
    this.other = button("Switch", () => this.switch());
    this.bar = element("div", "comparison", [
      this.names, this.other, button("Clear", () => this.clear()),
    ]);
    this.bar.setAttribute("role", "group");
    this.bar.setAttribute("aria-label", "Compare two clips");
    root.append(this.bar);
    this.show();
  }

  /** Take a clip as A or B, or leave it out again; a third one takes the place of B. */
  mark(player) {
    player.comparison = this;
    if (this.clips.includes(player)) this.clips = this.clips.filter((clip) => clip !== player);
    else this.clips = [...this.clips.slice(0, 1), player];
    this.show();
  }

  /** Let another clip, or none, take the place of one that goes off the page. */
  exchange(player, other) {
    if (!this.clips.includes(player)) return;
    if (other) other.comparison = this;
    this.clips = this.clips.flatMap((clip) => (clip === player ? other ?? [] : clip));
    this.show();
  }

  clear() {
    this.clips = [];
    this.show();
  }

  switch() {
    const playing = this.clips.find((clip) => clip.playing);
    const other = this.clips.find((clip) => clip !== playing);
    if (other) other.playFrom(playing ? playing.at : other.at);
    this.show();
  }

  show() {
    const clips = this.clips.map((clip, index) => [clip, "AB"[index]]);
    for (const mark of this.bar.parentNode.querySelectorAll("clip-player .mark")) mark.textContent = "A/B";
    for (const [clip, letter] of clips) clip.mark.textContent = letter;
    for (const player of this.bar.parentNode.querySelectorAll("clip-player")) {
      player.mark?.setAttribute("aria-pressed", String(this.clips.includes(player)));
      if (player.button) player.show();
    }
    const names = clips.map(([clip, letter]) => [element("b", "", letter), ` ${clip.dataset.label} `]);
    this.names.replaceChildren(...names.flat(), clips.length === 1 ? "Choose a second clip." : "");
    this.other.disabled = clips.length < 2;
    this.bar.hidden = !clips.length;
  }
}

const players = ({ root }) => [...(root?.querySelectorAll("clip-player") ?? [])]; // none once it is off the page

/** Say once on a page which keys a player has. */
const tellKeys = (root) => {
  if (root.querySelector(".listening-keys")) return;
  const key = (name) => element("kbd", "", name);
  root.querySelector("h3, .listening-scroll, .listening-list").before(element("p", "listening-keys", [
    "On a player, the space bar plays, ", key("←"), " and ", key("→"), " move by a second, ",
    key("↑"), " and ", key("↓"), " go to another clip at the same moment. ", key("A"),
    " chooses a clip to compare, and ", key("X"), " switches between the two that are chosen.",
  ]));
};

/** Pause every sound of the page but one. */
const pauseOthers = (media) => {
  for (const audio of document.querySelectorAll("audio")) if (audio !== media) audio.pause();
  for (const player of document.querySelectorAll("clip-player"))
    if (player.media !== media) player.media?.pause();
};
document.addEventListener("play", (event) => pauseOthers(event.target), true);

// A waveform is drawn when its clip comes into sight.
const visible = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.isVisible = isIntersecting;
    if (isIntersecting) target.draw();
  }
}, { rootMargin: "200px" });

const recolour = () => {
  for (const player of document.querySelectorAll("clip-player")) player.wave?.setOptions(player.colours());
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
if (document.body) // the themes of JupyterLab and of VS Code
  new MutationObserver(recolour).observe(document.body, { attributeFilter: ["data-jp-theme-name", "data-vscode-theme-kind"] });

// As made, or loudness-matched: the players change their source, and go on where they were.
document.addEventListener("change", ({ target }) => {
  if (target.name !== "loudness" || !target.closest(".listening")) return;
  for (const audio of target.closest(".listening").querySelectorAll("audio[data-matched]")) {
    audio.dataset.made ??= audio.getAttribute("src");
    const { currentTime, paused } = audio;
    audio.src = target.value === "matched" ? audio.dataset.matched : audio.dataset.made;
    if (currentTime > 0) audio.currentTime = currentTime;
    if (!paused) audio.play();
  }
});

customElements.define("clip-player", ClipPlayer);
