// The latent map: how many objects lie where, how anomalous they are, and a rectangle that chooses them for the gallery.

import { pageOf } from "./cards.js";
import { byId, count, fill, fixed, h, number, say } from "./dom.js";
import { segments } from "./gallery.js";
import { kindOf, mapReader } from "./maps.js";
import { currentQuery, go } from "./place.js";
import { NIGHT, ramp } from "./ramp.js";

const read = mapReader("/maps/latent");
const section = byId("map");
const DOT = 3.5;
let map = null, box = null, by = "mean", canvas = null;
const parts = {};

export async function show(query) {
  if (!canvas) build();
  parts.kinds.press(kindOf(query));
  const found = await read(query, () => fill(parts.text, "Reading the latents …"));
  if (!found) return;
  if (!found.again) {
    map = found.map;
    box = null;
    if (!map) fill(parts.text, found.problem.message);
    describe();
  }
  draw();
}

function build() {
  parts.kinds = segments("Kind", [["spectrum", "Spectra"], ["cutout", "Cutouts"]], (kind) => go(`#/map?${new URLSearchParams({ kind })}`));
  parts.colours = segments("Colour", [["mean", "Mean score"], ["max", "Highest score"], ["count", "Density"]], (value) => { by = value; parts.colours.press(by); draw(); });
  parts.colours.press(by);
  canvas = h("canvas", { class: "map", tabindex: "0", role: "application", "aria-label": "Latent map. Arrow keys move a rectangle, with Shift they change its size, Enter shows what is in it." });
  parts.text = h("p", { class: "dim" });
  parts.chosen = h("p", { class: "chosen-box", "aria-live": "polite" });
  parts.legend = h("canvas", { class: "legend", role: "img", "aria-label": "Colours from low to high" });
  parts.low = h("span", {});
  parts.high = h("span", {});
  parts.points = h("ol", { class: "plain points" });
  fill(section, h("h1", { class: "unseen" }, "Latent map"),
    h("div", { class: "bar" }, parts.kinds, parts.colours, h("span", { class: "scale" }, parts.low, parts.legend, parts.high)),
    h("div", { class: "sheet wide" },
      h("div", {}, canvas, parts.text, parts.chosen),
      h("div", {}, h("h2", {}, "Most anomalous here"), parts.points)));
  brush();
  window.addEventListener("resize", draw);
  window.addEventListener("theme", draw);
}

// ---- from the latent plane to the screen and back ----

function frame() {
  const { width, height } = canvas.getBoundingClientRect();
  const [left, bottom, right, top] = map.bounds;
  return {
    width, height,
    x: (value) => ((value - left) / (right - left)) * width,
    y: (value) => height - ((value - bottom) / (top - bottom)) * height,
    column: (px) => Math.max(0, Math.min(map.columns - 1, Math.floor((px / width) * map.columns))),
    row: (py) => Math.max(0, Math.min(map.rows - 1, Math.floor((1 - py / height) * map.rows))),
  };
}

function draw() {
  if (!canvas || section.hidden || !map) return;
  const { width, height, x, y } = frame();
  const scale = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const { cells } = map;
  const values = cells[by].map((value) => (by === "count" ? Math.log10(value) : value));
  const sorted = [...values].sort((a, b) => a - b);
  const low = sorted[0] ?? 0, high = Math.max(sorted[Math.floor(0.99 * (sorted.length - 1))] ?? 1, low + 1e-6);
  const most = Math.log1p(Math.max(...cells.count, 1));
  const w = width / map.columns, v = height / map.rows;
  cells.column.forEach((column, i) => {
    context.fillStyle = ramp((values[i] - low) / (high - low));
    // faint where few are, so that the eye sees the density under the colour of the score
    context.globalAlpha = by === "count" ? 1 : 0.5 + (0.5 * Math.log1p(cells.count[i])) / most;
    context.fillRect(column * w, height - (cells.row[i] + 1) * v, w + 0.6, v + 0.6);
  });
  context.globalAlpha = 1;
  context.strokeStyle = NIGHT.ink;
  context.lineWidth = 1;
  for (const point of map.points) {
    context.beginPath();
    context.arc(x(point.x), y(point.y), DOT, 0, 2 * Math.PI);
    context.stroke();
  }
  if (box) {
    context.strokeStyle = NIGHT.accent;
    context.lineWidth = 2;
    context.strokeRect(box.c0 * w, height - (box.r1 + 1) * v, (box.c1 - box.c0 + 1) * w, (box.r1 - box.r0 + 1) * v);
  }
  parts.low.textContent = by === "count" ? "1" : number(low);
  parts.high.textContent = by === "count" ? count(Math.round(10 ** high)) : number(high);
  const bar = parts.legend.getContext("2d");
  for (let i = 0; i < parts.legend.width; i += 1) {
    bar.fillStyle = ramp(i / parts.legend.width);
    bar.fillRect(i, 0, 1, parts.legend.height);
  }
}

function describe() {
  fill(parts.points);
  fill(parts.chosen);
  if (!map) return;
  const [first, second] = map.explained;
  fill(parts.text, `${count(map.n)} ${map.kind === "spectrum" ? "spectra" : "cutouts"} as ${map.model} places them, along the two directions in which they differ most (${fixed(100 * first, 0)} % and ${fixed(100 * second, 0)} % of the variance); circles are the most anomalous. What lies further out is drawn at the edge. Drag a rectangle to choose.`);
  fill(parts.points, map.points.slice(0, 12).map((point) => h("li", {}, h("a", { href: pageOf({ ...point, model: map.model }) }, point.object_id), h("span", { class: "dim" }, ` ${number(point.score, 3)}`))));
  say(`Latent map of ${map.n} objects`);
}

// ---- the rectangle ----

function brush() {
  let start = null;
  const at = (event) => {
    const { column, row } = frame();
    return { c: column(event.offsetX), r: row(event.offsetY) };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!map) return;
    start = { ...at(event), x: event.offsetX, y: event.offsetY };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!start || !map) return;
    const now = at(event);
    setBox({ c0: Math.min(start.c, now.c), c1: Math.max(start.c, now.c), r0: Math.min(start.r, now.r), r1: Math.max(start.r, now.r) });
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!start || !map) return;
    const moved = Math.hypot(event.offsetX - start.x, event.offsetY - start.y);
    start = null;
    if (moved > 4) return;
    const { x, y } = frame();
    const hit = map.points.find((point) => Math.hypot(x(point.x) - event.offsetX, y(point.y) - event.offsetY) < 2 * DOT);
    if (hit) go(pageOf({ ...hit, model: map.model }));
    else setBox(null);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!map) return;
    if (move) {
      event.preventDefault();
      const c = map.columns / 2, r = map.rows / 2;
      const b = box ?? { c0: c - 5, c1: c + 4, r0: r - 5, r1: r + 4 };
      const column = (value) => Math.max(0, Math.min(map.columns - 1, value));
      const row = (value) => Math.max(0, Math.min(map.rows - 1, value));
      const grows = event.shiftKey;
      setBox({
        c0: grows ? b.c0 : column(b.c0 + 2 * move[0]), c1: Math.max(grows ? b.c0 : 0, column(b.c1 + 2 * move[0])),
        r0: grows ? b.r0 : row(b.r0 + 2 * move[1]), r1: Math.max(grows ? b.r0 : 0, row(b.r1 + 2 * move[1])),
      });
    } else if (event.key === "Enter" && box) showBox();
  });
}

function setBox(wanted) {
  box = wanted;
  draw();
  if (!box) {
    fill(parts.chosen);
    return;
  }
  let n = 0, highest = -Infinity;
  map.cells.column.forEach((column, i) => {
    const row = map.cells.row[i];
    if (column < box.c0 || column > box.c1 || row < box.r0 || row > box.r1) return;
    n += map.cells.count[i];
    highest = Math.max(highest, map.cells.max[i]);
  });
  fill(parts.chosen, h("strong", {}, count(n)), n ? ` objects, highest score ${number(highest, 3)} ` : " objects ",
    n ? h("button", { type: "button", class: "primary", onclick: showBox }, "Show them in the gallery") : null,
    h("button", { type: "button", onclick: () => setBox(null) }, "Clear"));
}

function showBox() {
  const [left, bottom, right, top] = map.bounds;
  const x = (c) => left + (c / map.columns) * (right - left), y = (r) => bottom + (r / map.rows) * (top - bottom);
  const query = new URLSearchParams({
    night: currentQuery().get("night") ?? "all", kind: map.kind, model: map.model,
    left: x(box.c0), bottom: y(box.r0), right: box.c1 + 1 === map.columns ? right : x(box.c1 + 1), top: box.r1 + 1 === map.rows ? top : y(box.r1 + 1),
  });
  go(`#/?${query}`);
}
