// Each clip gets a button with its length, and its picture becomes its timeline: a click plays from
// there. Without this script the browser's own players do.
const seconds = (value) => `${value.toFixed(1)} s`;
for (const player of document.querySelectorAll(".listening audio")) {
  const length = Number(player.dataset.length), picture = player.previousElementSibling;
  const button = document.createElement("button"), time = document.createElement("span");
  const timeline = document.createElement("div"), playhead = document.createElement("i");
  button.type = "button";
  button.className = "play";
  button.setAttribute("aria-label", player.getAttribute("aria-label"));
  time.textContent = seconds(length);
  button.append(time);
  timeline.className = "timeline";
  picture.replaceWith(timeline);
  timeline.append(picture, playhead);
  player.removeAttribute("controls");
  player.before(button);
  player.closest("figure").classList.add("scripted");
  const show = () => {
    button.setAttribute("aria-pressed", String(!player.paused));
    button.classList.toggle("playing", !player.paused);
    const at = player.ended ? 0 : player.currentTime;
    time.textContent = at ? `${at.toFixed(1)} / ${seconds(length)}` : seconds(length);
    playhead.style.left = `${(100 * at) / timeline.dataset.scale}%`;
    playhead.hidden = !at;
  };
  timeline.dataset.scale = player.closest(".listening").dataset.duration;
  const playFrom = (at) => {
    player.currentTime = Math.max(0, Math.min(at, length));
    show();
    if (player.paused) player.play();
  };
  const toggle = () => (player.paused ? player.play() : player.pause());
  button.addEventListener("click", toggle);
  button.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    playFrom(player.currentTime + step);
  });
  timeline.addEventListener("click", (event) => {
    const box = timeline.getBoundingClientRect();
    playFrom(((event.clientX - box.left) / box.width) * timeline.dataset.scale);
  });
  for (const name of ["play", "pause", "timeupdate", "ended"]) player.addEventListener(name, show);
  show();
}

// A page that was sent without its folder says so.
const beside = document.querySelector('.listening img:not([src^="data:"])');
if (beside) {
  const probe = new Image();
  probe.onerror = () => { document.querySelector(".without-folder").hidden = false; };
  probe.src = beside.src;
}

// One clip at a time: starting a player pauses the one before it.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
}, true);

// As made, or loudness-matched: the players change their source, and go on where they were.
document.addEventListener("change", (event) => {
  if (event.target.name !== "loudness") return;
  const matched = event.target.value === "matched";
  for (const player of document.querySelectorAll("audio[data-matched]")) {
    player.dataset.made ??= player.getAttribute("src");
    const { currentTime, paused } = player;
    player.src = matched ? player.dataset.matched : player.dataset.made;
    if (currentTime > 0) player.currentTime = currentTime;
    if (!paused) player.play();
  }
});

// A click on a head sorts the table; what is unknown stands last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const by = (row) => row.cells[column].dataset.sort;
    const numbers = head.classList.contains("number");
    const compare = (a, b) => {
      if (!by(a) || !by(b)) return (by(a) ? 0 : 1) - (by(b) ? 0 : 1);
      const order = numbers ? by(a) - by(b) : by(a).localeCompare(by(b));
      return falling ? -order : order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }));
}
