// More like this: a FITS file that need not be in the catalog, scored, with the objects nearest to it.

import { ask, features } from "./api.js";
import { card, pageOf, partsOf } from "./cards.js";
import { byId, fill, h, number, say } from "./dom.js";
import * as gallery from "./gallery.js";
import { readLabels } from "./labels.js";
import { inWords } from "./pictures.js";

const section = byId("like");
let result = null, built = false;

export async function show() {
  if (built) return;
  built = true;
  const input = h("input", { type: "file", id: "file", accept: ".fits,.fit,.fz,.gz,application/fits" });
  const drop = h("label", { class: "drop", for: "file" }, h("strong", {}, "Choose a FITS file"), h("span", { class: "dim" }, "or drop one here: a spectrum or a cutout. It is scored, not kept."), input);
  result = h("div", { "aria-live": "polite" });
  fill(section, h("h1", {}, "More like this"), drop, result);
  input.addEventListener("change", () => { if (input.files[0]) send(input.files[0]); });
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) send(event.dataTransfer.files[0]);
  });
  const { upload } = await features().catch(() => ({ upload: true }));
  if (!upload) fill(result, h("p", { class: "dim" }, "This service takes no files. From an object’s page the nearest objects of the catalog can be seen all the same."));
}

async function send(file) {
  fill(result, h("p", { class: "dim" }, `Reading and scoring ${file.name} …`));
  try {
    const { uploadTakes } = await features().catch(() => ({ uploadTakes: [] }));
    const query = new URLSearchParams();
    if (uploadTakes.includes("name")) query.set("name", file.name.slice(-255));
    if (uploadTakes.includes("picture")) query.set("picture", "true");
    const found = await (await ask(`/neighbours?${query}`, { method: "POST", body: file, type: "application/fits" })).json();
    const models = await gallery.readModels();
    fill(result,
      h("h2", { class: "plainly" }, found.object_id || file.name, h("span", { class: "dim" }, ` ${found.kind} · ${found.model}`)),
      h("dl", { class: "figures big" }, [["score", number(found.score, 3)], ["p", number(found.p_value)]].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      found.picture ? h("img", { class: "drawn", src: found.picture, alt: `${found.kind} with its reconstruction and residual: ${(found.windows ?? []).map(inWords).join("; ") || "nothing stands out locally"}` }) : null,
      found.windows?.length ? h("p", {}, found.windows.map(inWords).join("; ")) : null,
      h("h2", {}, "Parts of the score"), partsOf(found, models.get(found.model)),
      h("h2", {}, "Nearest in the catalog"),
      h("ul", { class: "cards small" }, found.neighbours.map((row) => {
        const item = card(row, { models, stretch: () => gallery.stretch, distance: row.distance });
        item.removeAttribute("tabindex");
        item.querySelector("a").removeAttribute("tabindex");
        item.querySelector(".frame").addEventListener("click", () => { location.hash = pageOf(row); });
        return item;
      })));
    say(`${file.name}: score ${number(found.score, 3)}, p ${number(found.p_value)}, ${found.neighbours.length} neighbours`);
    readLabels(found.neighbours).catch(() => {});
  } catch (problem) {
    const text = [404, 405].includes(problem.status) ? "This service takes no files." : problem.message;
    fill(result, h("p", { class: "problem" }, text));
  }
}
