// Explanations, as the catalog keeps them, drawn on canvases: cutouts in three stretches, spectra with their model.

import { ask, objectPath, which } from "./api.js";
import { colour, fixed, number } from "./dom.js";

const KEPT = 500;
const LARGEST_RESIDUAL = 12; // σ at which residuals were clipped
const SHOWN_RESIDUAL = 8; // σ at which the residual images saturate
export const STRETCHES = ["asinh", "linear", "log"];

const loaded = new Map();

/** The explanation of a row's object, or null where none is kept. The last few hundred stay in memory. */
export function explanationOf(row) {
  const path = objectPath(row, `/explanation?${which(row)}`);
  let found = loaded.get(path);
  if (!found) {
    found = ask(path).then(async (answer) => (answer.status === 204 ? null : decode(await answer.arrayBuffer())));
    found.catch(() => loaded.delete(path));
    loaded.set(path, found);
    if (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
  }
  return found;
}

/** A line of JSON, then flux, reconstruction and residual, a byte a value. */
function decode(buffer) {
  const bytes = new Uint8Array(buffer);
  const end = bytes.indexOf(10);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const planes = [];
  let from = end + 1;
  for (const shape of header.shapes) {
    const size = shape.reduce((a, b) => a * b, 1);
    planes.push(bytes.subarray(from, from + size));
    from += size;
  }
  const [flux, expected, coded] = planes;
  const residual = Float32Array.from(new Int8Array(coded.buffer, coded.byteOffset, coded.length),
    (level) => (level * LARGEST_RESIDUAL) / 127);
  return {
    ...header,
    flux: values(flux, header.shapes[0], header.limits),
    expected: values(expected, header.shapes[1], header.limits),
    residual,
  };
}

function values(coded, shape, limits) {
  const size = coded.length / shape[0];
  const out = new Float32Array(coded.length);
  for (let i = 0; i < coded.length; i += 1) {
    const [low, high] = limits[Math.floor(i / size)];
    out[i] = coded[i] ? low + ((coded[i] - 1) / 254) * (high - low) : NaN;
  }
  return out;
}

/** What stands out, in words: "9.3 σ excess at Hβ, 4863 Å". */
export function inWords(window) {
  const what = `${number(Math.abs(window.significance))} σ ${window.significance > 0 ? "excess" : "deficit"}`;
  if (!("low" in window)) return `${what} in ${window.band}, ${number(window.radius)} pixels off centre`;
  return `${what} at ${window.line ? `${window.line}, ` : ""}${Math.round((window.low + window.high) / 2)} Å`;
}

/** A canvas of a size in CSS pixels, sharp on this screen. */
function prepared(canvas) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(window.devicePixelRatio || 1, 3);
  const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return { context, width, height };
}

// ---- cutouts ----

/** The flux before the model's arcsinh, and that stretched anew to between 0 and 1. */
function stretched(value, stretch, low, high) {
  if (Number.isNaN(value)) return NaN;
  if (stretch === "asinh") return (value - low) / (high - low);
  const floor = Math.sinh(low);
  const t = (Math.sinh(value) - floor) / (Math.sinh(high) - floor);
  return stretch === "linear" ? t : Math.log1p(1000 * Math.max(t, 0)) / Math.log1p(1000);
}

function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round((share / 100) * (sorted.length - 1))))];
}

function rangeOf(explanation) {
  explanation.range ??= (() => {
    const sorted = explanation.flux.filter((value) => !Number.isNaN(value)).sort();
    const low = sorted.length ? percentile(sorted, 20) : 0, high = sorted.length ? percentile(sorted, 99.8) : 1;
    return [low, Math.max(high, low + 1e-6)];
  })();
  return explanation.range;
}

/** Planes of a cutout as a small canvas of their own size: three bands as colours, the reddest red, or one in grey. */
function composite(planes, shape, explanation, stretch, band = null) {
  const [bands, rows, columns] = shape;
  const chosen = band === null ? [Math.min(2, bands - 1), Math.min(1, bands - 1), 0] : [band, band, band];
  const [low, high] = rangeOf(explanation);
  return pixels(rows, columns, (i) => chosen.map((c) => 255 * stretched(planes[c * rows * columns + i], stretch, low, high)));
}

/** Residuals as a small canvas: deficits blue, excesses orange, over the bands together or of one. */
function residuals(explanation, band = null) {
  const [bands, rows, columns] = explanation.shapes[2];
  const size = rows * columns;
  return pixels(rows, columns, (i) => {
    let total = 0;
    if (band !== null) total = explanation.residual[band * size + i];
    else for (let b = 0; b < bands; b += 1) total += explanation.residual[b * size + i] / Math.sqrt(bands);
    const t = Math.max(-1, Math.min(1, total / SHOWN_RESIDUAL));
    return t > 0 ? [20 + 235 * t, 24 + 150 * t, 32 + 40 * t] : [20 - 10 * t, 24 - 120 * t, 32 - 223 * t];
  });
}

/** Row 0 is at the bottom; NaN is a dark grey. */
function pixels(rows, columns, colourOf) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const rgb = colourOf(row * columns + column);
      const to = 4 * ((rows - 1 - row) * columns + column);
      const unknown = rgb.some(Number.isNaN);
      for (let k = 0; k < 3; k += 1) image.data[to + k] = unknown ? 40 : rgb[k];
      image.data[to + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function place(context, picture, x, y, side) {
  context.imageSmoothingEnabled = false;
  context.drawImage(picture, x, y, side, side);
}

function outline(context, explanation, windows, x, y, side) {
  const scale = side / explanation.shapes[0][2];
  context.strokeStyle = "#fff";
  context.lineWidth = 1;
  for (const w of windows) {
    const left = x + (w.column + 0.5 - w.size / 2) * scale;
    const top = y + side - (w.row + 0.5 + w.size / 2) * scale;
    context.strokeRect(left, top, w.size * scale, w.size * scale);
  }
}

/** The image large, beside it the reconstruction over the residual: three squares that fill a frame of 3 : 2. */
function drawCutout(canvas, explanation, stretch) {
  const { context, width, height } = prepared(canvas);
  const side = Math.min(height, (width * 2) / 3), half = (side - 2) / 2;
  const x = (width - 1.5 * side) / 2;
  place(context, composite(explanation.flux, explanation.shapes[0], explanation, stretch), x, 0, side);
  place(context, composite(explanation.expected, explanation.shapes[1], explanation, stretch), x + side + 2, 0, half);
  place(context, residuals(explanation), x + side + 2, half + 2, half);
  outline(context, explanation, explanation.windows, x + side + 2, half + 2, half);
}

/** Every band: image, reconstruction, residual. */
export function drawBands(canvas, explanation, stretch) {
  const { context, width } = prepared(canvas);
  const gap = 6, side = (width - 2 * gap - 24) / 3;
  context.fillStyle = colour("dim");
  context.font = "12px system-ui, sans-serif";
  explanation.bands.forEach((name, b) => {
    const y = b * (side + gap);
    context.fillText(name, 2, y + side / 2);
    place(context, composite(explanation.flux, explanation.shapes[0], explanation, stretch, b), 24, y, side);
    place(context, composite(explanation.expected, explanation.shapes[1], explanation, stretch, b), 24 + side + gap, y, side);
    place(context, residuals(explanation, b), 24 + 2 * (side + gap), y, side);
    outline(context, explanation, explanation.windows.filter((w) => w.band === name), 24 + 2 * (side + gap), y, side);
  });
}

// ---- spectra ----

/** Flux with its reconstruction above, the residual in σ below, and the lines at what stands out. */
export function drawSpectrum(canvas, explanation, axes = false) {
  const { context, width, height } = prepared(canvas);
  const { flux, expected, residual } = explanation;
  const n = flux.length;
  let first = 0, last = n - 1;
  while (first < last && Number.isNaN(flux[first])) first += 1;
  while (last > first && Number.isNaN(flux[last])) last -= 1;
  const left = axes ? 46 : 0, right = width - (axes ? 8 : 0);
  const split = Math.round(height * 0.68), bottom = height - (axes ? 34 : 0);
  const [low, high] = explanation.limits[0];
  const x = (i) => left + ((i - first) / Math.max(1, last - first)) * (right - left);
  const y = (value) => split - 6 - ((Math.max(low, Math.min(high, value)) - low) / (high - low)) * (split - 22);
  const middle = (split + bottom) / 2, half = (bottom - split) / 2 - 3;
  const r = (value) => middle - (Math.max(-SHOWN_RESIDUAL, Math.min(SHOWN_RESIDUAL, value)) / SHOWN_RESIDUAL) * half;
  const index = (wavelength) => (Math.log10(wavelength) - explanation.loglam[0]) / explanation.loglam[1];
  const text = colour("text"), dim = colour("dim"), accent = colour("accent"), line = colour("line");

  context.font = `${axes ? 12 : 10}px system-ui, sans-serif`;
  const named = [];
  for (const w of explanation.windows) {
    const from = x(index(w.low) - 1), to = x(index(w.high) + 1);
    context.fillStyle = accent;
    context.globalAlpha = 0.17;
    context.fillRect(from, 0, Math.max(2, to - from), bottom);
    context.globalAlpha = 1;
    const at = (from + to) / 2, label = w.line;
    const wide = context.measureText(label).width;
    if (label && named.every((other) => Math.abs(other.at - at) > (other.wide + wide) / 2 + 6)) {
      named.push({ at, wide });
      context.fillStyle = accent;
      context.fillText(label, Math.max(left + 2, Math.min(right - wide - 2, at - wide / 2)), 11);
    }
  }
  context.strokeStyle = line;
  context.lineWidth = 1;
  for (const level of [split, middle]) {
    context.beginPath();
    context.moveTo(left, level + 0.5);
    context.lineTo(right, level + 0.5);
    context.stroke();
  }
  const curve = (plane, to, style, thickness, from = 0) => {
    context.strokeStyle = style;
    context.lineWidth = thickness;
    context.beginPath();
    let drawing = false;
    for (let i = first; i <= last; i += 1) {
      const value = plane[from + i];
      if (Number.isNaN(value) || Number.isNaN(flux[i])) { drawing = false; continue; }
      if (drawing) context.lineTo(x(i), to(value)); else context.moveTo(x(i), to(value));
      drawing = true;
    }
    context.stroke();
  };
  curve(flux, y, text, axes ? 0.9 : 0.6);
  curve(expected, y, accent, axes ? 1.4 : 1);
  curve(residual, r, dim, axes ? 0.9 : 0.6);
  if (!axes) return { wavelengthAt: null };

  context.fillStyle = dim;
  context.font = "12px system-ui, sans-serif";
  const start = 10 ** (explanation.loglam[0] + first * explanation.loglam[1]);
  const end = 10 ** (explanation.loglam[0] + last * explanation.loglam[1]);
  const step = [100, 200, 250, 500, 1000, 2000].find((s) => (end - start) / s < width / 80) ?? 2000;
  context.textAlign = "center";
  for (let w = Math.ceil(start / step) * step; w <= end; w += step) {
    context.fillText(String(w), x(index(w)), bottom + 14);
    context.fillRect(x(index(w)), bottom, 1, 3);
  }
  context.fillText("rest wavelength / Å", (left + right) / 2, bottom + 30);
  context.textAlign = "right";
  for (const sigma of [-SHOWN_RESIDUAL, 0, SHOWN_RESIDUAL]) context.fillText(fixed(sigma, 0), left - 6, r(sigma) + 4);
  for (const value of low < 0 && high > 0 ? [0, high / 2, high] : [(low + high) / 2, high]) context.fillText(number(value), left - 6, y(value) + 4);
  context.save();
  context.translate(11, (split) / 2);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText("flux / amplitude", 0, 0);
  context.restore();
  context.save();
  context.translate(11, middle);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText("residual / σ", 0, 0);
  context.restore();
  return {
    at(px) {
      const i = Math.round(first + ((px - left) / (right - left)) * (last - first));
      if (i < first || i > last) return null;
      return { wavelength: 10 ** (explanation.loglam[0] + i * explanation.loglam[1]), flux: flux[i], expected: expected[i], residual: residual[i] };
    },
  };
}

/** Draw an explanation in the frame of a card. */
export function drawThumbnail(canvas, explanation, stretch) {
  if (explanation.bands.length) drawCutout(canvas, explanation, stretch);
  else drawSpectrum(canvas, explanation);
}
