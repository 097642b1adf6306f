"use strict";

/** All scans show the same slice: what one shows, the others show too. */
const showAlone = Viewer.prototype.show;
let shown = null; // the slice that all scans show

Viewer.prototype.show = async function (number) {
  const begins = this.slice === undefined;
  await showAlone.call(this, begins && shown !== null ? shown : number);
  if (begins) {
    shown ??= this.slice;
    return;
  }
  if (this.slice === shown) return;
  shown = this.slice;
  await Promise.all([...viewers.values()].filter((viewer) => viewer !== this).map((viewer) => showAlone.call(viewer, shown)));
};

startViewers();
