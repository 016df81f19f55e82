// A card for an object: its picture, its figures, what stands out, what people say.

import { count, fixed, h, number } from "./dom.js";
import { isUnsent, labelsOf, watchers } from "./labels.js";
import { drawThumbnail, explanationOf, inWords } from "./pictures.js";

export const KEPT_BELOW = 0.05; // p-value above which the catalog keeps no explanation
const drawn = new Map(); // canvas → () => draw again

const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    target.dispatchEvent(new Event("near"));
  }
}, { rootMargin: "400px" });

/** Address of an object's page, whatever characters its identity has. */
export const pageOf = (row) =>
  `#/object?${new URLSearchParams({ id: row.object_id, kind: row.kind, survey: row.survey, ...(row.model ? { model: row.model } : {}) })}`;

/** p with a sign that it is the smallest the calibration resolves. */
export function pValue(row, models) {
  const smallest = models?.get(row.model)?.smallest_p;
  return smallest && row.p_value <= smallest * 1.000001 ? `≤ ${number(row.p_value)}` : number(row.p_value);
}

/** What a card says to somebody who does not see it. */
export function spoken(row, place, models) {
  const parts = [
    place ? `${place}.` : "", row.kind, row.object_id, `score ${number(row.score, 3)}, p ${pValue(row, models)},`,
    row.q_value === null ? "" : `q ${number(row.q_value)}.`,
    row.windows?.length ? `${inWords(row.windows[0])}.` : "",
    row.flags ? `Flags: ${row.flags.replaceAll(",", ", ")}.` : "",
    labelsOf(row).map(([by, word]) => `${word}, says ${by}.`).join(" "),
  ];
  return parts.filter(Boolean).join(" ");
}

/** The canvas of a row, drawn when it comes near the screen; a quiet sentence where nothing is kept. */
export function thumbnail(row, stretch = () => "asinh") {
  const canvas = h("canvas", { role: "img", "aria-label": pictureText(row) });
  const frame = h("div", { class: "frame waiting" }, canvas);
  const draw = async () => {
    try {
      const explanation = await explanationOf(row);
      frame.classList.remove("waiting");
      if (!explanation) return missing(frame, row);
      if (!canvas.isConnected) return undefined;
      drawThumbnail(canvas, explanation, stretch());
      drawn.set(canvas, () => drawThumbnail(canvas, explanation, stretch()));
    } catch (problem) {
      frame.classList.remove("waiting");
      frame.replaceChildren(h("p", { class: "nothing" }, problem.message));
    }
    return undefined;
  };
  if (row.p_value > KEPT_BELOW) {
    frame.classList.remove("waiting");
    missing(frame, row);
  } else {
    frame.addEventListener("near", draw);
    near.observe(frame);
  }
  return frame;
}

function missing(frame, row) {
  frame.replaceChildren(h("p", { class: "nothing" },
    row.p_value > KEPT_BELOW
      ? `No picture is kept: p = ${number(row.p_value)} is ordinary.`
      : "No picture was kept when this was scored."));
}

function pictureText(row) {
  const stands = row.windows?.length ? row.windows.map(inWords).join("; ") : "nothing stands out locally";
  return row.kind === "spectrum"
    ? `Spectrum with its reconstruction and residual: ${stands}`
    : `Cutout, its reconstruction and residual: ${stands}`;
}

/** Draw everything again: other colours, another stretch, another width. */
export function redraw() {
  for (const [canvas, draw] of drawn) {
    if (!canvas.isConnected) drawn.delete(canvas);
    else if (canvas.offsetParent) draw();
  }
}

/** The labels of a row as marks that follow what is said. */
export function marks(row) {
  const list = h("span", { class: "marks" });
  const show = () => {
    list.replaceChildren(...labelsOf(row).map(([by, word]) =>
      h("span", { class: `mark-${word} chip${isUnsent(row.object_id) ? " unsent" : ""}`, title: `says ${by}` }, word.replace("-", " "))));
  };
  show();
  list.dataset.of = row.object_id;
  list.addEventListener("said", show);
  return list;
}

watchers.add((id) => {
  for (const list of document.querySelectorAll(".marks")) if (list.dataset.of === id) list.dispatchEvent(new Event("said"));
});

/** The card of a row: a list item with a link to its page. */
export function card(row, { place, models, stretch, distance } = {}) {
  const figures = [
    ["score", number(row.score, 3)],
    ["p", pValue(row, models)],
    ["q", row.q_value === null ? "–" : number(row.q_value)],
    distance === undefined ? ["S/N", number(row.snr)] : ["distance", number(distance, 3)],
  ];
  if (row.interest !== undefined && row.interest !== null) figures[3] = ["interest", fixed(row.interest, 2)];
  const flags = (row.flags ?? "").split(",").filter(Boolean);
  const item = h("li", { class: "card", tabindex: "-1", "aria-label": spoken(row, place && count(place), models) },
    thumbnail(row, stretch),
    h("div", { class: "caption" },
      h("a", { class: "identity", href: pageOf(row), tabindex: "-1" },
        place ? h("span", { class: "place" }, count(place)) : null, row.object_id),
      h("dl", { class: "figures" }, figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      h("p", { class: "stands" }, row.windows?.length ? inWords(row.windows[0]) : "nothing stands out locally"),
      h("p", { class: "remarks" }, marks(row), flags.map((flag) => h("span", { class: "flag" }, flag)))));
  item.row = row;
  item.addEventListener("focus", () => item.setAttribute("aria-label", spoken(row, place && count(place), models)));
  return item;
}

/** Each part with its p-value as a bar of −log₁₀ p: full where the calibration resolves no less. */
export function partsOf(row, model) {
  const named = Object.keys(row.parts).filter((name) => `${name}_p` in row.parts && row.parts[`${name}_p`] !== null);
  named.sort((a, b) => row.parts[`${a}_p`] - row.parts[`${b}_p`]);
  const others = Object.keys(row.parts).filter((name) => !named.includes(name) && !named.includes(name.replace(/_p$/, "")));
  const deepest = Math.max(-Math.log10(model?.smallest_p ?? 1e-3), ...named.map((name) => -Math.log10(row.parts[`${name}_p`])), 1);
  return h("table", { class: "parts" },
    h("thead", { class: "unseen" }, h("tr", {}, h("th", { scope: "col" }, "Part"), h("th", { scope: "col" }, "Surprise"), h("th", { scope: "col" }, "p"))),
    h("tbody", {}, named.map((name) => {
      const p = row.parts[`${name}_p`];
      const bar = h("span", { class: "bar-of" });
      bar.style.width = `${Math.max(0.5, (100 * -Math.log10(p)) / deepest)}%`;
      return h("tr", { title: `${name} = ${number(row.parts[name], 3)}` }, h("th", { scope: "row" }, name.replaceAll("_", " ")), h("td", { class: "bars" }, bar), h("td", { class: "value" }, number(p)));
    }), others.map((name) => h("tr", {}, h("th", { scope: "row" }, name.replaceAll("_", " ")), h("td", {}), h("td", { class: "value" }, number(row.parts[name], 3))))));
}

let width = window.innerWidth;
window.addEventListener("resize", () => {
  if (width === window.innerWidth) return; // a phone's address bar changes the height only
  width = window.innerWidth;
  clearTimeout(redraw.timer);
  redraw.timer = setTimeout(redraw, 120);
});
