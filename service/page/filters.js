// Filters: a form made from what the service says it can filter by, so that it never offers what there is not.

import { features } from "./api.js";
import { fill, h } from "./dom.js";

const OWN = ["night", "kind"]; // have a place of their own in the bar
const NOT_SENT = ["ranking"];
const BOX = ["left", "bottom", "right", "top"];
const NAMES = {
  p: "p at most", q: "q at most (false-discovery rate)", ra: "Cone: right ascension / °", dec: "Cone: declination / °",
  radius: "Cone: radius / °", cluster: "Cluster", model: "Model", flagged: "Also nights with instrument problems",
  since: "From night", until: "To night", part: "Part of the score", part_p: "That part’s p at most", lens_fraction: "Lens fraction at least",
  snr_min: "S/N from", snr_max: "S/N to", redshift_min: "Redshift from", redshift_max: "Redshift to", spectral_class: "Class",
  label: "Called", labelled: "Labelled", flag: "With the flag", no_flag: "Without the flag", search: "Identity contains",
  polygon: "Polygon: ra,dec,ra,dec,… / °",
};

const nameOf = (one) => NAMES[one] ?? one.replaceAll("_", " ").replace(/^./, (c) => c.toUpperCase());

/** The filters of an address as the API takes them. */
export function toQuery(query, newestNight) {
  const wanted = new URLSearchParams(query);
  for (const name of NOT_SENT) wanted.delete(name);
  const night = query.get("night") ?? newestNight;
  wanted.delete("night");
  if (night && night !== "all") wanted.set("night", night);
  return wanted;
}

/** A mark for each filter that is set, which takes it away. */
export function chips(query, change) {
  const found = [];
  const chip = (text, names) => h("button", { type: "button", class: "chip", "aria-label": `Take away the filter ${text}`,
    onclick: () => change(Object.fromEntries(names.map((name) => [name, null]))) }, text, h("span", { "aria-hidden": "true" }, " ×"));
  const cone = ["ra", "dec", "radius"];
  if (query.has("left")) found.push(chip("region of the latent map", [...BOX, "model"]));
  if (query.has("ra")) found.push(chip(`within ${query.get("radius")}° of ${query.get("ra")}, ${query.get("dec")}`, cone));
  for (const name of new Set(query.keys())) {
    if ([...OWN, ...NOT_SENT, ...BOX, ...cone].includes(name) || (name === "model" && query.has("left"))) continue;
    const text = query.getAll(name).join(", ");
    found.push(chip(text === "true" ? nameOf(name) : `${nameOf(name)} ${text}`, [name]));
  }
  return found;
}

/** Fill the panel with a field for each filter that the service knows. */
export async function filterForm(panel, query, models, change) {
  let known;
  try {
    ({ filters: known } = await features());
  } catch {
    return; // the gallery works without
  }
  const fields = known.filter((one) => !OWN.includes(one.name)).map((one) => {
    const value = query.getAll(one.name).join(", ");
    let input;
    const choices = one.name === "model" ? models.map((model) => model.id) : one.choices;
    if (one.type === "boolean" && one.open) {
      input = h("select", { name: one.name }, [["", "any"], ["true", "yes"], ["false", "no"]].map(([value, name]) => h("option", { value }, name)));
      input.value = value;
    } else if (one.type === "boolean") input = h("input", { type: "checkbox", name: one.name, checked: value === "true" });
    else if (choices && !one.list) {
      input = h("select", { name: one.name }, h("option", { value: "" }, "any"), choices.map((c) => h("option", { value: c }, c)));
      input.value = value;
    } else {
      const numeric = ["number", "integer"].includes(one.type) && !one.list;
      input = h("input", { type: numeric ? "number" : one.type === "date" ? "date" : "text", step: one.type === "integer" ? "1" : "any", name: one.name, value });
    }
    input.dataset.list = one.list;
    return h("label", { class: input.type === "checkbox" ? "check" : null, title: one.description }, h("span", {}, nameOf(one.name)), input);
  });
  const form = h("form", {}, fields, h("div", { class: "buttons" },
    h("button", { type: "button", onclick: () => change(Object.fromEntries(known.filter((one) => !OWN.includes(one.name)).map((one) => [one.name, null]))) }, "Clear"),
    h("button", { class: "primary" }, "Apply")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = {};
    for (const input of form.querySelectorAll("input, select")) {
      if (input.type === "checkbox") wanted[input.name] = input.checked ? "true" : null;
      else wanted[input.name] = input.dataset.list === "true" ? input.value.split(",").map((part) => part.trim()).filter(Boolean) : input.value;
    }
    change(wanted);
  });
  fill(panel, form);
}
