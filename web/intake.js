// Files from drop, paste or the file dialog, anywhere on the page.

import { Fault } from "./fault.js";

/**
 * @param {HTMLElement} overlay shown while something is dragged over the page
 * @param {(file: File, others: number) => void} onFile
 * @param {(fault: Fault) => void} onNothing called when something without a file was dropped
 */
export function acceptDrops(overlay, onFile, onNothing) {
  // Entering a child element also leaves its parent, so count the events.
  let depth = 0;
  const setDepth = (value) => {
    depth = Math.max(0, value);
    overlay.hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    setDepth(depth + 1);
  });
  addEventListener("dragleave", () => setDepth(depth - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    setDepth(0);
    const { files, types } = event.dataTransfer;
    if (files.length > 0) onFile(files[0], files.length - 1);
    else onNothing(new Fault("no-picture", types.includes("text/uri-list") ? "a link was dropped, not a file" : "no file was dropped"));
  });
}

export function acceptPastes(onFile, onNothing) {
  addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    if (files.length > 0) onFile(files[0], files.length - 1);
    else if (!event.target.closest?.("textarea, input")) onNothing(new Fault("no-picture", "the clipboard contains no picture"));
  });
}

/** Makes a button open the browser's file dialog. */
export function acceptChoice(button, input, onFile) {
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length > 0) onFile(input.files[0]);
    // So that choosing the same file again also fires a change.
    input.value = "";
  });
}
