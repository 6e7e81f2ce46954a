// Sorts a table by the column whose heading is pressed; numbers by data-value, gaps last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  if (table.caption) table.caption.append(" Press a heading to sort.");
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const number = (text) => (text === "" || text === "–" ? NaN : Number(text));
      const rows = [...body.rows];
      const numeric = rows.some((row) => row.cells[column].dataset.value !== undefined);
      rows.sort((a, b) => {
        if (!numeric) return (down ? -1 : 1) * key(a).localeCompare(key(b), undefined, { numeric: true });
        const [x, y] = [number(key(a)), number(key(b))];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return down ? y - x : x - y;
      });
      body.append(...rows);
    });
  });
}
