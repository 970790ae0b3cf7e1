// The interactive parts of the page: sortable tables, and images in the cells of the confusion matrix.

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
const explorer = document.querySelector(".cells");
if (explorer) {
  await explorer.querySelector("img")?.decode();
  explore(explorer, document.querySelector(".confusion svg"));
}

/** Turns each column's header into a button that sorts by it; a second press reverses the order. */
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      const compare = head.classList.contains("number") ? byNumber : byText;
      table.tBodies[0].append(...rows.sort((a, b) => compare(a.cells[column], b.cells[column], descending)));
    });
  });
}

function byText(a, b, descending) {
  const order = a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  return descending ? -order : order;
}

/** Cells without a number come last in both orders. */
function byNumber(a, b, descending) {
  const [first, second] = [a, b].map((cell) => cell.dataset.value);
  if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
  return descending ? second - first : first - second;
}

/**
 * Shows the images of a cell, which is chosen in the panel's lists or in the matrix with a click or the arrow keys.
 * See cells.rs for `panel.dataset.matrix`.
 */
function explore(panel, svg) {
  const { grid, image, step, columns, cells } = JSON.parse(panel.dataset.matrix);
  const [labels, answers, zoom] = panel.querySelectorAll("select, input");
  const status = panel.querySelector("[role=status]");
  const list = panel.querySelector("ul");
  const sheet = panel.querySelector("img");
  const names = Array.from(labels.options, (option) => option.text);
  const rows = names.map(() => names.map(() => ({ count: 0, confidences: [], start: 0 })));
  let start = 0;
  for (const [label, answer, count, ...confidences] of cells) {
    rows[label][answer] = { count, confidences, start };
    start += confidences.length;
  }
  let chosen;

  // When zoomed, the matrix scrolls in a frame of its original size.
  const frame = document.createElement("div");
  frame.className = "matrix";
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Confusion matrix: choose a cell with the arrow keys");
  frame.style.width = `${svg.getAttribute("width")}px`;
  frame.style.aspectRatio = `${svg.getAttribute("width")} / ${svg.getAttribute("height")}`;
  svg.before(frame);
  frame.append(svg);
  frame.after(panel);
  const marker = document.createElementNS(svg.namespaceURI, "rect");
  marker.setAttribute("width", grid.cell);
  marker.setAttribute("height", grid.cell);
  marker.classList.add("chosen");
  svg.append(marker);
  panel.hidden = false;

  const countOf = (label) => (answer) => rows[label][answer].count;
  /** Predictions for a class, most frequent first. */
  const ranked = (label) => [...names.keys()].sort((a, b) => countOf(label)(b) - countOf(label)(a));
  const commonestError = (label) => ranked(label).find((answer) => answer !== label) ?? label;

  function show(label, answer) {
    chosen = [label, answer];
    const { count, confidences, start } = rows[label][answer];
    labels.value = label;
    const option = (other) => new Option(`${names[other]} (${countOf(label)(other)})`, other);
    answers.replaceChildren(...ranked(label).map(option));
    answers.value = answer;
    marker.setAttribute("x", grid.left + answer * grid.cell);
    marker.setAttribute("y", grid.top + label * grid.cell);
    status.textContent = description(label, answer, count, confidences.length);
    list?.replaceChildren(...confidences.map((confidence, index) => shown(start + index, confidence, names[label])));
    if (list) list.scrollTop = 0;
  }

  function description(label, answer, count, here) {
    const how = label === answer ? "correctly" : `as ${names[answer]}`;
    const what = `${names[label]}, predicted ${how}`;
    const all = rows[label].reduce((sum, cell) => sum + cell.count, 0);
    const share = all > 0 ? ` (${((100 * count) / all).toFixed(1)} %)` : "";
    const order = here > 1 ? " The most confident come first." : "";
    const left = here > 0 && here < count ? ` ${(count - here).toLocaleString("en")} more are not shown.` : "";
    return `${what}: ${count.toLocaleString("en")} of ${all.toLocaleString("en")} images${share}.${order}${left}`;
  }

  /** A list item with an image of the sheet. */
  function shown(index, confidence, name) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = image;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", name);
    const from = [(index % columns) * step[0], Math.floor(index / columns) * step[1]];
    canvas.getContext("2d").drawImage(sheet, ...from, ...image, 0, 0, ...image);
    const item = document.createElement("li");
    item.append(canvas, `${confidence} %`);
    return item;
  }

  /** Scrolls the chosen cell to the center of the frame, as far as possible. */
  function reveal() {
    const scale = frame.scrollWidth / svg.viewBox.baseVal.width;
    const middle = (from, index) => (from + (index + 0.5) * grid.cell) * scale;
    frame.scrollLeft = middle(grid.left, chosen[1]) - frame.clientWidth / 2;
    frame.scrollTop = middle(grid.top, chosen[0]) - frame.clientHeight / 2;
  }

  svg.addEventListener("click", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const label = Math.floor((at.y - grid.top) / grid.cell);
    const answer = Math.floor((at.x - grid.left) / grid.cell);
    if (rows[label]?.[answer]) show(label, answer);
  });
  const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  frame.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const [label, answer] = chosen.map((index, axis) => Math.min(Math.max(index + move[axis], 0), names.length - 1));
    show(label, answer);
    reveal();
  });
  labels.addEventListener("change", () => {
    show(Number(labels.value), commonestError(Number(labels.value)));
    reveal();
  });
  answers.addEventListener("change", () => {
    show(chosen[0], Number(answers.value));
    reveal();
  });
  zoom.addEventListener("input", () => {
    frame.style.setProperty("--zoom", zoom.value);
    reveal();
  });

  const errors = names.map((_, label) => [label, commonestError(label)]).filter(([label, answer]) => label !== answer);
  const countAt = ([label, answer]) => rows[label][answer].count;
  show(...errors.reduce((most, cell) => (countAt(cell) > countAt(most) ? cell : most), errors[0] ?? [0, 0]));
}
