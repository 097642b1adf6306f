"use strict";

/** A point of a chart opens the viewer of its case; the table of patients has the same links for the keyboard. */
function startCharts() {
  document.addEventListener("click", (event) => {
    const name = event.target.closest(".point")?.dataset.case;
    const viewer = [...document.querySelectorAll(".viewer")].find((element) => element.dataset.case === name);
    if (viewer) openViewer(viewer.id);
  });
}

startTables();
startViewers();
startCharts();
