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
