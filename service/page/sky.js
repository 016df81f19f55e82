// The sky: where objects and discoveries lie, in HEALPix pixels on Mollweide's projection, east to the left.

import { byId, count, fill, fixed, h, number, say } from "./dom.js";
import { segments } from "./gallery.js";
import { kindOf, mapReader } from "./maps.js";
import { currentQuery, go } from "./place.js";
import { NIGHT, ramp } from "./ramp.js";

const read = mapReader("/maps/sky");
const section = byId("sky");
const REACH = 2.7; // degrees from a pixel's centre that hold all of it
const CENTRE = 180; // right ascension in the middle
let map = null, by = "count", canvas = null, chosen = -1;
const parts = {};

export async function show(query) {
  if (!canvas) build();
  parts.kinds.press(kindOf(query));
  const found = await read(query, () => fill(parts.text, "Reading the positions …"));
  if (!found) return;
  if (!found.again) {
    map = found.map;
    chosen = -1;
    if (map) describe();
    else fill(parts.text, found.problem.message);
  }
  draw();
}

function build() {
  parts.kinds = segments("Kind", [["spectrum", "Spectra"], ["cutout", "Cutouts"]], (kind) => go(`#/sky?${new URLSearchParams({ kind })}`));
  parts.colours = segments("Colour", [["count", "Objects"], ["discoveries", "Discoveries"], ["max", "Highest score"]], (value) => { by = value; parts.colours.press(by); draw(); });
  parts.colours.press(by);
  canvas = h("canvas", { class: "map sky", tabindex: "0", role: "application", "aria-label": "Map of the sky. Left and right arrow keys go through its regions, Enter shows one in the gallery." });
  parts.text = h("p", { class: "dim" });
  parts.at = h("p", { class: "chosen-box", "aria-live": "polite" });
  parts.table = h("tbody", {});
  fill(section, h("h1", { class: "unseen" }, "Sky"),
    h("div", { class: "bar" }, parts.kinds, parts.colours), canvas, parts.at, parts.text,
    h("h2", {}, "Regions with most discoveries"),
    h("table", { class: "regions" }, h("thead", {}, h("tr", {}, ["Region", "Objects", "Discoveries", "Highest score"].map((name) => h("th", { scope: "col" }, name)))), parts.table));
  canvas.addEventListener("pointermove", (event) => { point(nearest(event.offsetX, event.offsetY)); });
  canvas.addEventListener("click", (event) => { const i = nearest(event.offsetX, event.offsetY); if (i >= 0) open(i); });
  canvas.addEventListener("keydown", (event) => {
    if (!map?.pixels.ra.length) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      event.preventDefault();
      point((chosen + step + map.pixels.ra.length) % map.pixels.ra.length);
    } else if (event.key === "Enter" && chosen >= 0) open(chosen);
  });
  window.addEventListener("resize", draw);
  window.addEventListener("theme", draw);
}

/** Mollweide: degrees to the unit ellipse of half axes 2 and 1; right ascension grows to the left. */
function mollweide(lon, dec) {
  const phi = (dec * Math.PI) / 180;
  let theta = phi;
  if (Math.abs(dec) > 89.99) theta = phi;
  else {
    for (let i = 0; i < 12; i += 1) {
      theta -= (2 * theta + Math.sin(2 * theta) - Math.PI * Math.sin(phi)) / (2 + 2 * Math.cos(2 * theta) + 1e-9);
    }
  }
  return [(-2 * (lon / 180)) * Math.cos(theta), Math.sin(theta)];
}

const turned = (ra, around) => ((((ra - around) % 360) + 540) % 360) - 180;

function frame() {
  const { width, height } = canvas.getBoundingClientRect();
  const unit = Math.min((width - 8) / 4, (height - 8) / 2);
  return { width, height, unit, put: ([x, y]) => [width / 2 + x * unit, height / 2 - y * unit] };
}

function draw() {
  if (!canvas || section.hidden || !map) return;
  const { width, height, unit, put } = frame();
  const scale = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.beginPath();
  context.ellipse(width / 2, height / 2, 2 * unit, unit, 0, 0, 2 * Math.PI);
  context.fillStyle = NIGHT.ground;
  context.fill();
  context.save();
  context.clip();
  grid(context, put);
  const { pixels } = map;
  const values = pixels[by].map((value) => (by === "max" ? value : Math.log1p(value)));
  const high = Math.max(...values, 1e-6), low = by === "max" ? Math.min(...values) : 0;
  pixels.corners.forEach((corners, i) => {
    if (by === "discoveries" && !pixels.discoveries[i]) return;
    context.fillStyle = ramp((values[i] - low) / (high - low || 1));
    // at the seam a pixel lies half on one side and half on the other
    const centre = turned(pixels.ra[i], CENTRE);
    for (const shift of Math.abs(centre) > 170 ? [0, -360 * Math.sign(centre)] : [0]) {
      context.beginPath();
      for (const [ra, dec] of corners) {
        const away = Math.abs(dec) > 89.9 ? 0 : turned(ra, pixels.ra[i]);
        context.lineTo(...put(mollweide(centre + away + shift, dec)));
      }
      context.closePath();
      context.fill();
      if (i === chosen) {
        context.strokeStyle = NIGHT.accent;
        context.lineWidth = 2;
        context.stroke();
      }
    }
  });
  context.restore();
  context.strokeStyle = NIGHT.line;
  context.lineWidth = 1;
  context.beginPath();
  context.ellipse(width / 2, height / 2, 2 * unit, unit, 0, 0, 2 * Math.PI);
  context.stroke();
  context.fillStyle = NIGHT.dim;
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  for (let hour = 2; hour < 24; hour += 4) {
    const [x, y] = put(mollweide(turned(hour * 15, CENTRE), 0));
    context.fillText(`${hour}h`, x, y - 3);
  }
}

function grid(context, put) {
  context.strokeStyle = NIGHT.line;
  context.lineWidth = 1;
  for (let lon = -150; lon <= 150; lon += 30) {
    context.beginPath();
    for (let dec = -90; dec <= 90; dec += 5) context.lineTo(...put(mollweide(lon, dec)));
    context.stroke();
  }
  for (let dec = -60; dec <= 60; dec += 30) {
    context.beginPath();
    context.moveTo(...put(mollweide(-180, dec)));
    context.lineTo(...put(mollweide(180, dec)));
    context.stroke();
  }
}

/** The occupied pixel under a place on the canvas, or -1. */
function nearest(px, py) {
  if (!map) return -1;
  const { unit, put } = frame();
  let best = -1, least = Math.max(8, 0.05 * unit);
  map.pixels.ra.forEach((ra, i) => {
    const [x, y] = put(mollweide(turned(ra, CENTRE), map.pixels.dec[i]));
    const distance = Math.hypot(x - px, y - py);
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}

function inWords(i) {
  const { pixels } = map;
  return `${fixed(pixels.ra[i], 0)}°, ${fixed(pixels.dec[i], 0)}°: ${count(pixels.count[i])} objects, ${count(pixels.discoveries[i])} discoveries, highest score ${number(pixels.max[i], 3)}`;
}

function point(i) {
  if (i === chosen) return;
  chosen = i;
  canvas.classList.toggle("over", i >= 0);
  fill(parts.at, i < 0 ? "" : inWords(i));
  draw();
}

function address(i) {
  const { ra, dec } = map.pixels;
  return `#/?${new URLSearchParams({ night: currentQuery().get("night") ?? "all", kind: map.kind, ra: ra[i], dec: dec[i], radius: REACH })}`;
}

const open = (i) => go(address(i));

function describe() {
  const { pixels } = map;
  fill(parts.text, `${count(map.n_placed)} of ${count(map.n)} ${map.kind === "spectrum" ? "spectra" : "cutouts"} have a position. Regions are HEALPix pixels of 3.7°; discoveries have q ≤ ${number(map.fdr)}.`);
  const order = pixels.ra.map((_, i) => i).sort((a, b) => pixels.discoveries[b] - pixels.discoveries[a] || pixels.max[b] - pixels.max[a]);
  fill(parts.table, order.slice(0, 10).map((i) => h("tr", {},
    h("td", {}, h("a", { href: address(i) }, `${fixed(pixels.ra[i], 1)}°, ${fixed(pixels.dec[i], 1)}°`)),
    [pixels.count[i], pixels.discoveries[i]].map((n) => h("td", { class: "value" }, count(n))), h("td", { class: "value" }, number(pixels.max[i], 3)))));
  say(`Sky map of ${map.n_placed} objects`);
}
