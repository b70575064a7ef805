// One question after another: sounds that run at the same time, of which one is heard, and an answer.
"use strict";

const $ = (id) => document.getElementById(id);
const QUESTIONS = {
  pairs: "Which one do you prefer?",
  abx: "Does X have the settings of A or those of B?",
  rate: "How do you rate this clip?",
};
const CHOICES = {
  pairs: [["a", "Prefer A", "1"], ["none", "No difference", "0"], ["b", "Prefer B", "2"]],
  abx: [["a", "X is like A", "1"], ["b", "X is like B", "2"]],
  rate: [],
};
const NAMES = { pairs: ["A", "B"], abx: ["A", "B", "X"], rate: ["the clip"] };

let who = null; // { listener, mode }
let context = null; // made at the first press, as browsers want it
let trial = null;
let buffers = [];
let playing = null; // { sources, gains, startedAt }
let offset = 0; // in seconds, where playing starts
let chosen = 0; // the sound that is heard
let heard = new Set();
let sending = false;

async function get(url, body) {
  const post = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...who, ...body }),
  };
  let response;
  try {
    response = await fetch(url, post);
  } catch {
    throw new Error("The program has ended. Start it again, and load this page again to go on.");
  }
  if (!response.ok) throw new Error((await response.json()).detail);
  return response;
}

async function show(next) {
  stop();
  trial = next;
  buffers = [];
  offset = 0;
  chosen = 0;
  heard = new Set();
  say("");
  const count = `${next.answered} answer${next.answered === 1 ? "" : "s"}`;
  $("progress").textContent = `${next.listener}: ${count} so far. Each is saved at once; close the page whenever you like.`;
  $("header").hidden = false;
  $("start").hidden = true;
  $("trial").hidden = !next.trial;
  $("prompt").textContent = next.trial ? `“${next.prompt}”` : "";
  $("question").textContent = next.trial ? QUESTIONS[next.mode] : "All questions are answered. Thank you.";
  $("question").focus();
  if (!next.trial) return;
  $("comment").value = "";
  $("comment").closest("details").open = false;
  $("sounds").hidden = next.mode === "rate";
  $("sounds").replaceChildren(...NAMES[next.mode].map((name, index) => {
    const button = key(name, name);
    button.addEventListener("click", () => listen(index));
    return button;
  }));
  $("choices").hidden = next.mode === "rate";
  $("choices").replaceChildren(...CHOICES[next.mode].map(([choice, text, shortcut]) => {
    const button = key(text, shortcut);
    button.dataset.choice = choice;
    return button;
  }));
  $("ratings").hidden = next.mode !== "rate";
  for (const name of ["quality", "fit"]) {
    $(name).value = 50;
    $(name).dataset.moved = "";
    document.querySelector(`output[for=${name}]`).textContent = "–";
  }
  update();
  const shown = next.trial;
  const contents = await Promise.all(
    next.sounds.map(async (url) => (await get(url)).arrayBuffer()),
  );
  context ??= new AudioContext();
  const decoded = await Promise.all(contents.map((content) => context.decodeAudioData(content)));
  if (trial?.trial !== shown) return;
  buffers = decoded;
  $("position").max = buffers[0].duration;
  update();
}

function key(text, shortcut) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(text);
  if (text !== shortcut) {
    const hint = document.createElement("kbd");
    hint.textContent = shortcut;
    button.append(" ", hint);
  }
  button.dataset.key = shortcut.toLowerCase();
  return button;
}

// All sounds of a question start together, so that one is heard from the moment where another was.
async function play() {
  if (!buffers.length) return;
  await context.resume();
  if (!buffers.length) return; // another question is shown by now
  stop();
  if (offset >= buffers[0].duration - 0.05) offset = 0;
  const startedAt = context.currentTime;
  const gains = buffers.map((_, index) => {
    const gain = new GainNode(context, { gain: index === chosen ? 1 : 0 });
    gain.connect(context.destination);
    return gain;
  });
  const sources = buffers.map((buffer, index) => {
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(gains[index]);
    source.start(startedAt, offset);
    return source;
  });
  sources[0].addEventListener("ended", () => {
    if (playing?.sources !== sources) return;
    stop();
    offset = 0;
    update();
  });
  playing = { sources, gains, startedAt };
  heard.add(chosen);
  update();
  follow(playing);
}

function stop() {
  if (!playing) return;
  offset = now();
  const { sources, gains } = playing;
  playing = null;
  for (const source of sources) source.stop();
  for (const gain of gains) gain.disconnect();
}

function now() {
  return playing ? offset + context.currentTime - playing.startedAt : offset;
}

function listen(index) {
  chosen = index;
  if (!playing) return play();
  playing.gains.forEach((gain, at) => {
    gain.gain.setTargetAtTime(at === index ? 1 : 0, context.currentTime, 0.01);
  });
  heard.add(index);
  update();
}

function toggle() {
  if (!playing) return play();
  stop();
  update();
}

function follow(started) {
  if (playing !== started) return;
  $("position").value = now();
  requestAnimationFrame(() => follow(started));
}

function update() {
  $("play").firstElementChild.textContent = playing ? "Pause" : "Play";
  $("play").disabled = !buffers.length;
  $("position").value = now();
  [...$("sounds").children].forEach((button, index) => {
    button.disabled = !buffers.length;
    button.setAttribute("aria-pressed", String(index === chosen && heard.size > 0));
  });
  const all = buffers.length > 0 && heard.size === buffers.length;
  const unheard = NAMES[trial.mode].filter((_, index) => !heard.has(index));
  const scales = trial.mode === "rate" ? ["quality", "fit"] : [];
  const unrated = scales.filter((name) => !$(name).dataset.moved);
  $("hint").textContent = !all ? `Still to be heard: ${unheard.join(", ")}`
    : unrated.length ? `Still to be rated: ${unrated.join(", ")}` : "";
  for (const button of $("choices").children) button.disabled = !all;
  $("rate").disabled = !all || unrated.length > 0;
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

async function answer(fields) {
  if (sending) return;
  sending = true;
  try {
    const body = { trial: trial.trial, comment: $("comment").value, ...fields };
    const response = await get("answer", body);
    sending = false;
    await show(await response.json());
  } catch (error) {
    say(error.message, true);
  } finally {
    sending = false;
  }
}

function skip() {
  answer(trial.mode === "rate" ? { quality: null, fit: null } : { choice: "skip" });
}

$("play").addEventListener("click", toggle);
$("skip").addEventListener("click", skip);
$("choices").addEventListener("click", (event) => {
  const choice = event.target.closest("button")?.dataset.choice;
  if (choice) answer({ choice });
});
$("position").addEventListener("input", () => {
  const was = playing;
  stop();
  offset = Number($("position").value);
  if (was) play();
});
for (const name of ["quality", "fit"]) {
  for (const kind of ["input", "change", "click", "keyup"]) {
    $(name).addEventListener(kind, (event) => {
      if (event.key === "Tab" || event.key === "Shift") return;
      $(name).dataset.moved = "yes";
      document.querySelector(`output[for=${name}]`).textContent = $(name).value;
      update();
    });
  }
}
$("trial").addEventListener("submit", (event) => {
  event.preventDefault();
  if (trial.mode === "rate" && !$("rate").disabled) {
    answer({ quality: Number($("quality").value), fit: Number($("fit").value) });
  }
});
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || !trial?.trial) return;
  if (event.target.matches("textarea, summary")) return;
  const pressed = event.key.toLowerCase();
  if (pressed === " ") {
    if (event.target.matches("button")) return; // a press of that button
    event.preventDefault();
    toggle();
  } else if (pressed === "s") {
    skip();
  } else {
    document.querySelector(`button[data-key="${CSS.escape(pressed)}"]:enabled`)?.click();
  }
});

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  const { listener, mode } = Object.fromEntries(new FormData($("start")));
  begin({ listener: listener.trim(), mode });
});

// The page's address says who listens, so that loading it again goes on.
function readAddress() {
  const { listener, mode = "pairs" } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (listener) return begin({ listener, mode });
  ask("", mode);
}

function ask(listener, mode) {
  stop();
  trial = null;
  $("trial").hidden = $("header").hidden = true;
  $("prompt").textContent = "";
  $("question").textContent = "Blind listening";
  $("start").hidden = false;
  $("listener").value = listener;
  $("start").elements.mode.value = mode;
  $("listener").focus();
}

async function begin(listener) {
  who = listener;
  say("");
  let first;
  try {
    first = await (await get("trial", {})).json();
  } catch (error) {
    ask(who.listener, who.mode);
    say(error.message, true);
    return;
  }
  history.replaceState(null, "", `#${new URLSearchParams(who)}`);
  show(first).catch((error) => say(error.message, true));
}

window.addEventListener("hashchange", readAddress);
readAddress();
