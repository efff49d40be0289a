// Tables of class "sortable" get a button in each column head; without this script they are plain tables.
"use strict";
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true; // paper cannot be unfolded
});
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const number = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? number.compare(a, b) : x - y;
  };
  const sort = (column) => {
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
    const order = heads[column].getAttribute("aria-sort");
    const isText = [...body.rows].some((row) => Number.isNaN(Number(key(row))));
    const down = order ? order === "ascending" : !isText; // the best number first, but names from A
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last either way
      return down ? compare(y, x) : compare(x, y);
    });
    body.append(...rows);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
}
