"use strict";
// Click on a column's head to sort by it: numbers first high to low, text first A to Z; empty cells stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const empty = (value) => value === "" || value === "–";
      const numeric = rows.every((row) => empty(key(row)) || !Number.isNaN(Number(key(row))));
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numeric;
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (empty(x) || empty(y)) return empty(x) - empty(y);
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
        return up ? order : -order;
      });
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
// A box above a long table: only rows that hold all its words are shown.
for (const table of document.querySelectorAll("table.filtered")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 6) continue;
  const label = document.createElement("label");
  const box = document.createElement("input");
  const count = document.createElement("span");
  label.className = "filter";
  box.type = "search";
  count.setAttribute("role", "status");
  label.append("Filter ", box, count);
  table.parentElement.before(label);
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? ` ${shown} of ${rows.length}` : "";
  });
}
