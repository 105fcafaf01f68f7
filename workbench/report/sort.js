"use strict";
// Headings of sortable tables become buttons: up, down, as it was. Real text stays below; what has no figure comes last.
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells), before = Array.from(body.rows);
  const key = (row, at) => row.cells[at].dataset.sort;
  const sorted = (at, sign) => before.slice().sort((a, b) => {
    const last = a.classList.contains("real") - b.classList.contains("real");
    const x = key(a, at), y = key(b, at);
    if (last || !x || !y) return last || (y ? 1 : 0) - (x ? 1 : 0);
    return sign * (at ? x - y : x.localeCompare(y, undefined, {numeric: true}));
  });
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = {ascending: "descending", descending: "none"}[head.getAttribute("aria-sort")] || "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next !== "none") head.setAttribute("aria-sort", next);
      body.append(...(next === "none" ? before : sorted(at, next === "ascending" ? 1 : -1)));
    });
  });
});
