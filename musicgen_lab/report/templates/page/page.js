// A page that was sent without its folder says so.
const beside = document.querySelector('.listening img:not([src^="data:"])');
if (beside) {
  const probe = new Image();
  probe.onerror = () => { document.querySelector(".without-folder").hidden = false; };
  probe.src = beside.src;
}

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

// Links to the sections, which stay in sight.
const sections = [...document.querySelectorAll("main h2")];
if (sections.length > 2) {
  const nav = document.createElement("nav");
  nav.className = "contents";
  nav.ariaLabel = "Sections";
  nav.append(...sections.map((head) => {
    head.id ||= head.textContent.replaceAll(" ", "-");
    const link = document.createElement("a");
    link.href = `#${encodeURIComponent(head.id)}`;
    link.textContent = head.textContent;
    return link;
  }));
  document.querySelector("main").prepend(nav);
}
