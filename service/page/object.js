// One object: its picture large, why it stands out, what is near it, what people said.

import { getJson, objectPath, which } from "./api.js";
import { KEPT_BELOW, card, marks, pValue, pageOf, partsOf } from "./cards.js";
import { byId, count, fill, fixed, h, instant, number, say } from "./dom.js";
import * as gallery from "./gallery.js";
import { labelsOf, readLabels, watchers } from "./labels.js";
import { STRETCHES, drawBands, drawSpectrum, drawThumbnail, explanationOf, inWords } from "./pictures.js";

const NEIGHBOURS = 8;
const section = byId("object");
let turn = 0, redrawPicture = null, shownRow = null;

window.addEventListener("theme", () => redrawPicture?.());
window.addEventListener("resize", () => redrawPicture?.());
section.addEventListener("stretch", () => { gallery.nextStretch(); redrawPicture?.(); });

export async function show(query) {
  turn += 1;
  const mine = turn;
  redrawPicture = null;
  shownRow = null;
  const identity = { object_id: query.get("id") ?? "" };
  fill(section, heading(identity.object_id), h("p", { class: "dim" }, "Reading the catalog …"));
  const asked = new URLSearchParams();
  for (const name of ["kind", "survey"]) if (query.has(name)) asked.set(name, query.get(name));
  let found, models;
  try {
    [found, models] = await Promise.all([getJson(objectPath(identity, `?${asked}`)), gallery.readModels()]);
  } catch (problem) {
    if (mine !== turn) return;
    const choices = problem.document?.choices ?? [];
    fill(section, heading(identity.object_id), h("p", {}, problem.message),
      h("ul", {}, choices.map((choice) => h("li", {}, h("a", { href: pageOf({ ...identity, ...choice }) }, `the ${choice.kind} of ${choice.survey || "no survey"}`)))));
    say(problem.message);
    return;
  }
  if (mine !== turn) return;
  const row = found.scores.find((one) => one.model === query.get("model")) ?? found.scores[0];
  if (!row) {
    fill(section, heading(found.object_id), h("p", {}, "This object has no current score."));
    return;
  }
  shownRow = row;
  section.dispatchEvent(new CustomEvent("shown", { detail: row }));
  const picture = h("div", { class: "picture" });
  const near = h("div", { class: "strip" }, h("p", { class: "dim" }, "Looking for the nearest in the latent space …"));
  const cluster = h("p", {}, `Cluster ${row.cluster}, with probability ${fixed(row.cluster_probability, 2)}.`);
  const history = h("div", {});
  fill(section,
    h("div", { class: "title" },
      h("a", { class: "back", href: "#/", onclick: (event) => { event.preventDefault(); document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" })); } }, "← Gallery"),
      heading(found.object_id), h("span", { class: "dim" }, `${row.kind}${found.survey ? ` · ${found.survey}` : ""}`), marks(row)),
    h("div", { class: "sheet" },
      h("div", {}, picture, h("h2", {}, "What stands out"), windowsOf(row)),
      h("div", {},
        h("dl", { class: "figures big" }, [["score", number(row.score, 3)], ["p", pValue(row, models)], ["q", row.q_value === null ? "–" : number(row.q_value)],
          ["S/N", number(row.snr)], ["χ²/dof", number(row.chi2, 3)]].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
        row.flags ? h("p", { class: "remarks" }, row.flags.split(",").map((flag) => h("span", { class: "flag" }, flag))) : null,
        h("h2", {}, "Parts of the score"), partsOf(row, models.get(row.model)),
        h("h2", {}, "Elsewhere"), linksOf(found),
        h("h2", {}, "Cluster"), cluster, lensOf(row),
        h("h2", {}, "Observations"), observationsOf(found),
        h("h2", {}, "Labels"), history)),
    h("h2", {}, "Nearest in the latent space"), near);
  historyOf(history, found.labels);
  readLabels([row]).catch(() => {});
  say(`${row.kind} ${row.object_id}, score ${number(row.score, 3)}, p ${pValue(row, models)}`);
  drawPicture(picture, row, mine);
  clusterOf(cluster, row, mine);
  try {
    const rows = await getJson(objectPath(row, `/neighbours?${which(row, { k: NEIGHBOURS })}`));
    if (mine !== turn) return;
    fill(near, rows.length ? h("ul", { class: "cards small" }, rows.map((one) => tabbable(card(one, { models, stretch: () => gallery.stretch, distance: one.distance })))) : h("p", { class: "dim" }, "Nothing else has been scored by this model."));
    readLabels(rows).catch(() => {});
  } catch (problem) {
    if (mine === turn) fill(near, h("p", { class: "dim" }, problem.message));
  }
}

const heading = (text) => h("h1", { class: "identity" }, text);

function tabbable(item) {
  item.removeAttribute("tabindex");
  item.querySelector("a").removeAttribute("tabindex");
  item.querySelector(".frame").addEventListener("click", () => { location.hash = pageOf(item.row); });
  return item;
}

async function drawPicture(frame, row, mine) {
  let explanation;
  try {
    explanation = await explanationOf(row);
  } catch (problem) {
    fill(frame, h("p", { class: "nothing" }, problem.message));
    return;
  }
  if (mine !== turn) return;
  if (!explanation) {
    fill(frame, h("p", { class: "nothing" }, row.p_value > KEPT_BELOW
      ? `No picture is kept: p = ${number(row.p_value)} is ordinary. “peculiar explain” draws any object.`
      : "No picture was kept when this was scored. Score it again to have one."));
    return;
  }
  const stands = explanation.windows.map(inWords).join("; ") || "nothing stands out locally";
  if (!explanation.bands.length) {
    const canvas = h("canvas", { class: "spectrum", role: "img", "aria-label": `Spectrum over rest wavelength with its reconstruction, and the residual in σ below: ${stands}` });
    const reading = h("p", { class: "reading dim" }, legend());
    fill(frame, canvas, reading);
    let axes = drawSpectrum(canvas, explanation, true);
    redrawPicture = () => { axes = drawSpectrum(canvas, explanation, true); };
    canvas.addEventListener("pointermove", (event) => {
      const at = axes.at(event.offsetX);
      fill(reading, at && !Number.isNaN(at.flux) ? `${fixed(at.wavelength, 1)} Å · flux ${number(at.flux, 3)} · expected ${number(at.expected, 3)} · residual ${fixed(at.residual, 1)} σ` : legend());
    });
    canvas.addEventListener("pointerleave", () => fill(reading, legend()));
    return;
  }
  const canvas = h("canvas", { class: "cutout", role: "img", "aria-label": `Cutout in colour, its reconstruction and its residual: ${stands}` });
  const bands = h("canvas", { class: "bands", role: "img", "aria-label": `The bands ${explanation.bands.join(", ")}, each with image, reconstruction and residual` });
  const stretches = gallery.segments("Stretch", STRETCHES.map((name) => [name, name]), (name) => { gallery.setStretch(name); redrawPicture(); });
  fill(frame, stretches, canvas, h("p", { class: "reading dim" }, "Image; reconstruction above, residual below with what stands out. Each band: image, reconstruction, residual (blue a deficit, orange an excess, full at 8 σ)."), bands);
  redrawPicture = () => {
    stretches.press(gallery.stretch);
    drawThumbnail(canvas, explanation, gallery.stretch);
    const width = bands.getBoundingClientRect().width;
    bands.style.height = `${explanation.bands.length * ((width - 36) / 3 + 6)}px`;
    drawBands(bands, explanation, gallery.stretch);
  };
  redrawPicture();
}

const legend = () => [h("span", { class: "key-data" }, "spectrum"), " · ", h("span", { class: "key-model" }, "expected by the model"), " · residual in σ below; what stands out is shaded"];

function windowsOf(row) {
  if (!row.windows?.length) return h("p", { class: "dim" }, "No stretch or region departs by 4 σ or more.");
  return h("ol", { class: "windows" }, row.windows.map((w) => h("li", {},
    h("span", { class: "sigma" }, `${w.significance > 0 ? "+" : "−"}${number(Math.abs(w.significance))} σ`),
    "low" in w
      ? [h("strong", {}, w.line || "no known line"), ` ${fixed(w.low, 0)}–${fixed(w.high, 0)} Å`]
      : [h("strong", {}, `band ${w.band}`), ` ${number(w.radius)} pixels from the centre, position angle ${fixed(w.position_angle, 0)}°, ${w.size} pixels wide`])));
}

/** Where others show this place on the sky. */
function linksOf({ ra, dec }) {
  if (ra === null || dec === null) return h("p", { class: "dim" }, "Its position is not known.");
  const places = [
    ["SIMBAD", `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${ra}%20${dec}&CooFrame=ICRS&Radius=10&Radius.unit=arcsec`],
    ["NED", `https://ned.ipac.caltech.edu/conesearch?search_type=Near%20Position%20Search&in_csys=Equatorial&in_equinox=J2000&ra=${ra}&dec=${dec}&radius=0.2`],
    ["SDSS", `https://skyserver.sdss.org/dr18/VisualTools/navi?ra=${ra}&dec=${dec}&scale=0.2`],
    ["Legacy Survey", `https://www.legacysurvey.org/viewer?ra=${ra}&dec=${dec}&mark=${ra},${dec}&zoom=16&layer=ls-dr10`],
  ];
  return [h("p", { class: "links" }, places.map(([name, href]) => h("a", { href, target: "_blank", rel: "noopener noreferrer" }, name))),
    h("p", { class: "dim" }, `at ${fixed(ra, 5)}°, ${fixed(dec, 5)}° (ICRS)`)];
}

function lensOf(row) {
  return row.lens_fraction === null ? null : h("p", {}, `Expected lens fraction from its clusters’ labels: ${fixed(row.lens_fraction, 2)}.`);
}

async function clusterOf(paragraph, row, mine) {
  try {
    const found = (await getJson(`/clusters?${new URLSearchParams({ model: row.model })}`)).find((one) => one.cluster === row.cluster);
    if (mine !== turn || !found) return;
    const query = new URLSearchParams({ night: "all", kind: row.kind, model: row.model, cluster: String(row.cluster) });
    fill(paragraph, `Cluster ${row.cluster} with probability ${fixed(row.cluster_probability, 2)}: `,
      h("a", { href: `#/?${query}` }, `${count(found.size)} objects`), `, ${fixed(100 * found.weight, 1)} % of the training set`,
      found.lens_fraction === null ? "." : `; lens fraction ${fixed(found.lens_fraction, 2)} (${fixed(found.lens_fraction_low, 2)}–${fixed(found.lens_fraction_high, 2)}).`);
  } catch {
    // the number stands there already
  }
}

function observationsOf(found) {
  return h("ul", { class: "plain" }, found.observations.map((one) => h("li", { class: one.superseded ? "dim" : null },
    h("span", { class: "path" }, one.path), h("br"),
    [one.night, one.spectral_class, one.redshift === null ? "" : `z = ${fixed(one.redshift, 4)}`, one.zwarning ? `zwarning ${one.zwarning}` : "",
      one.duplicate ? "a copy" : "", one.superseded ? "the file has other bytes by now" : ""].filter(Boolean).join(" · "))));
}

/** The whole history of labels, and what is being said at this moment. */
function historyOf(box, history) {
  const before = new Set(history.map((one) => `${one.by}\n${one.label}`));
  const show = () => {
    if (!shownRow || !box.isConnected) return;
    const fresh = labelsOf(shownRow).filter(([by, word]) => !before.has(`${by}\n${word}`));
    fill(box, history.length || fresh.length ? h("ul", { class: "plain" },
      history.slice(-100).map((one) => h("li", {}, h("strong", {}, one.label), ` ${one.by}, ${instant(one.created_at)}`)),
      fresh.map(([by, word]) => h("li", {}, h("strong", {}, word), ` ${by}, just now`))) : h("p", { class: "dim" }, "Nobody has said anything yet."));
  };
  current.show = show;
  show();
}

const current = { show: null };
watchers.add((id) => { if (id === shownRow?.object_id) current.show?.(); });
