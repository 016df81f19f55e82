// The page: which view is shown, the keys that work everywhere, the bar for labelling.

import { pageOf, redraw } from "./cards.js";
import { byId, dialog, fill, h, say } from "./dom.js";
import * as gallery from "./gallery.js";
import { WORDS, askWho, flush, label, labelsOf, showWho, undo, watchers, who } from "./labels.js";
import { go, here } from "./place.js";

const THEME = "peculiar.theme", QUIET_KEYS = "peculiar.no-keys";
const VIEWS = {
  "/": { id: "gallery", title: "Gallery", module: async () => gallery },
  "/object": { id: "object", title: "Object", module: () => import("./object.js") },
  "/map": { id: "map", title: "Latent map", module: () => import("./latent.js") },
  "/sky": { id: "sky", title: "Sky", module: () => import("./sky.js") },
  "/like": { id: "like", title: "More like this", module: () => import("./like.js") },
  "/runs": { id: "runs", title: "Runs", module: () => import("./runs.js") },
};
let current = null, row = null, scrolled = 0, visited = 0;

async function route() {
  const { path, query } = here();
  const view = VIEWS[path] ?? VIEWS["/"];
  const changed = current !== view;
  if (changed && current?.id === "gallery") scrolled = window.scrollY;
  current = view;
  visited += changed;
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== view.id;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view.id) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = `${view.title} – Peculiar`;
  if (changed) window.scrollTo(0, view.id === "gallery" ? scrolled : 0);
  row = null;
  showDock();
  const module = await view.module();
  if (current !== view) return;
  if (changed && view.id !== "gallery") byId("main").focus({ preventScroll: true });
  await module.show(query);
}

/** The object that a label would be put on. */
const target = () => (current?.id === "gallery" ? gallery.chosenRow() : current?.id === "object" ? row : null);

byId("object").addEventListener("shown", (event) => {
  row = event.detail;
  document.title = `${row.object_id} – Peculiar`;
  showDock();
});

// ---- the bar for labelling ----

function buildDock() {
  fill(byId("dock"), h("span", { class: "target", id: "target" }),
    WORDS.map(({ key, word, name }) => h("button", { type: "button", "data-word": word, "aria-keyshortcuts": key, "aria-pressed": "false", onclick: () => put(word) },
      h("kbd", { "aria-hidden": "true" }, key), name)),
    h("button", { type: "button", id: "undo", "aria-keyshortcuts": "u", onclick: takeBack }, h("kbd", { "aria-hidden": "true" }, "u"), "Undo"));
  byId("dock").addEventListener("chosen", showDock);
  watchers.add(showDock);
}

function showDock() {
  const on = target();
  byId("dock").hidden = !on;
  document.body.classList.toggle("docked", Boolean(on));
  if (!on) return;
  byId("target").textContent = on.object_id;
  const mine = new Map(labelsOf(on)).get(who());
  for (const button of byId("dock").querySelectorAll("[data-word]")) button.setAttribute("aria-pressed", String(button.dataset.word === mine));
}

async function put(word) {
  const on = target();
  if (on && (await label(on, word)) && current.id === "gallery") gallery.labelled();
}

function takeBack() {
  const id = undo();
  if (id && current.id === "gallery") gallery.undone(id);
}

// ---- keys ----

const KEYS = [
  ["← → ↑ ↓", "move between objects (also Shift + H J K L)"],
  ["Home End", "to the first, the last shown"],
  ["Enter", "open the object"],
  ["Esc", "back to the gallery"],
  ...WORDS.map(({ key, name }) => [key, name]),
  ["u", "undo the last label"],
  ["s", "next stretch of cutouts: asinh, linear, log"],
  ["t", "raw ranking or my ranking"],
  ["r", "rank again with the newest labels"],
  ["f", "filters"],
  ["/", "search"],
  ["d", "dark or light"],
  ["?", "this list"],
];

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.closest?.("input, select, textarea");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (current.id !== "gallery") visited > 1 && current.id === "object" ? history.back() : go("#/");
    return;
  }
  if (typing || event.defaultPrevented) return;
  const action = actionOf(event);
  if (!action) return;
  if (event.key.length === 1 && localStorage.getItem(QUIET_KEYS)) return;
  event.preventDefault();
  action();
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], H: [-1, 0], L: [1, 0], K: [0, -1], J: [0, 1] };

function actionOf(event) {
  const { key, target: on } = event;
  const inGallery = current.id === "gallery", inObject = current.id === "object";
  const button = on.closest?.("button, a, summary");
  if (MOVES[key] && inGallery && !(button && !on.closest(".card, .dock"))) return () => gallery.move(...MOVES[key]);
  if (MOVES[key] && inObject && MOVES[key][0]) return () => step(MOVES[key][0]);
  if (inGallery && !button && (key === "Home" || key === "End")) {
    return () => gallery.choose(key === "Home" ? 0 : gallery.shown().rows.length - 1);
  }
  if (key === "Enter" && inGallery && !button && gallery.chosenRow()) return () => go(pageOf(gallery.chosenRow()));
  const word = WORDS.find((one) => one.key === key);
  if (word && target()) return () => put(word.word);
  return {
    u: target() ? takeBack : null,
    s: () => (inObject ? byId("object").dispatchEvent(new Event("stretch")) : gallery.nextStretch()),
    t: inGallery ? gallery.toggleRanking : null,
    r: inGallery ? gallery.rankAgain : null,
    f: inGallery ? gallery.toggleFilters : null,
    "/": inGallery ? gallery.focusSearch : null,
    d: switchTheme,
    "?": showHelp,
  }[key];
}

/** From one object's page to the next of the gallery. */
function step(by) {
  const { rows } = gallery.shown();
  const at = rows.findIndex((one) => row && one.object_id === row.object_id && one.kind === row.kind && one.survey === row.survey);
  const next = rows[at + by];
  if (at < 0 || !next) {
    say("The gallery has no more");
    return;
  }
  gallery.choose(at + by, false);
  location.replace(pageOf(next));
}

function showHelp() {
  const quiet = h("input", { type: "checkbox", checked: !localStorage.getItem(QUIET_KEYS), onchange: () => {
    if (quiet.checked) localStorage.removeItem(QUIET_KEYS); else localStorage.setItem(QUIET_KEYS, "yes");
  } });
  const shown = dialog("Keys",
    h("table", { class: "keys" }, h("tbody", {}, KEYS.map(([key, text]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, text))))),
    h("label", { class: "check" }, quiet, h("span", {}, "Single letters are keys")),
    h("p", { class: "dim" }, "p is the chance that an ordinary object scores as high; q the false-discovery rate at which this is a discovery. Every label is kept with its author and time; undo says again what was said before, or withdraws."),
    h("p", {}, h("a", { href: "/docs" }, "The HTTP API")),
    h("form", { method: "dialog", class: "buttons" }, h("button", { class: "primary" }, "Close")));
  return shown.done;
}

function switchTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme.startsWith("dark");
  localStorage.setItem(THEME, dark ? "light" : "dark");
  applyTheme();
  say(dark ? "Light" : "Dark");
}

function applyTheme() {
  const theme = localStorage.getItem(THEME);
  if (theme) document.documentElement.dataset.theme = theme;
  redraw();
  window.dispatchEvent(new Event("theme"));
}

applyTheme();
showWho();
buildDock();
byId("who").addEventListener("click", () => askWho(true));
byId("theme").addEventListener("click", switchTheme);
byId("help").addEventListener("click", showHelp);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", route);
window.matchMedia("(prefers-color-scheme: light)").addEventListener("change", applyTheme);
route();
flush();
