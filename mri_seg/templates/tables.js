"use strict";

const words = new Intl.Collator("en", { numeric: true }); // "case 2" before "case 10"

/** Sort the rows of a table by a column; sorting again reverses the order. */
function sortBy(header) {
  const [table, column] = [header.closest("table"), header.cellIndex];
  const text = header.classList.contains("text");
  const before = header.getAttribute("aria-sort");
  const descending = before ? before === "ascending" : !text;
  const value = (row) => {
    const cell = row.cells[column];
    if (text) return cell.textContent.trim();
    return parseFloat(cell.dataset.value ?? cell.textContent.replaceAll(",", ""));
  };
  const direction = descending ? -1 : 1;
  const order = ([, a], [, b]) => {
    if (text) return words.compare(a, b) * direction;
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // rows without a value come last
    return (a - b || 0) * direction; // two equal infinities have no difference
  };
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const sorted = [...table.tBodies[0].rows].map((row) => [row, value(row)]).sort(order);
  table.tBodies[0].append(...sorted.map(([row]) => row));
}

function startTables() {
  for (const header of document.querySelectorAll("table.sortable thead th:not(.unsorted)")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header));
    header.append(button);
  }
}
