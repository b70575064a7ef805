// On paper the figures are light, whatever the screen is.
let printed = [];
addEventListener("beforeprint", () => {
  printed = [...document.querySelectorAll("picture")].map((picture) => [picture, picture.querySelector("img").cloneNode()]);
  for (const [picture, light] of printed) picture.replaceWith(light);
});
addEventListener("afterprint", () => {
  for (const [picture, light] of printed) light.replaceWith(picture);
});

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
