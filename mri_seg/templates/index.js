"use strict";

/** Hide the rows without all words that are typed. */
function startSearch() {
  const input = document.getElementById("search");
  const rows = [...document.getElementById("cases").tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const search = () => {
    const words = input.value.toLowerCase().split(/\s+/);
    let shown = 0;
    rows.forEach((row, n) => {
      row.hidden = !words.every((word) => texts[n].includes(word));
      shown += !row.hidden;
    });
    document.getElementById("found").textContent = input.value.trim() ? `${shown} of ${rows.length} cases` : "";
  };
  input.addEventListener("input", search);
  input.closest(".search").hidden = false; // of no use without this script
  search(); // a browser may keep what was typed
}

startTables();
startSearch();
