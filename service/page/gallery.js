// The gallery: the night's outliers as cards, moved through and labelled by keys.

import { ask, features, getJson, hasKey } from "./api.js";
import { card, pageOf, redraw } from "./cards.js";
import { alarm, byId, count, fill, h, number, say } from "./dom.js";
import { chips, filterForm, toQuery } from "./filters.js";
import { askWho, readLabels, saidHere, who } from "./labels.js";
import { STRETCHES } from "./pictures.js";
import { currentQuery, go } from "./place.js";

const PAGE = 24;

const state = { asked: null, rows: [], next: null, chosen: 0, loading: false, turn: 0, ranked: 0, needed: null };
export let stretch = "asinh";
let models = new Map(), nights = [];
const parts = {};

/** The rows shown, and which of them is chosen: the object page walks through them. */
export const shown = () => ({ rows: state.rows, chosen: state.chosen });
export const chosenRow = () => state.rows[state.chosen] ?? null;

/** All models by id, read once; none where they cannot be read. */
export async function readModels() {
  if (!models.size) models = new Map((await getJson("/models").catch(() => [])).map((model) => [model.id, model]));
  return models;
}

function build() {
  parts.night = h("select", { id: "night", "aria-label": "Night", onchange: () => change({ night: parts.night.value }) });
  parts.kinds = segments("Kind", [["", "All"], ["spectrum", "Spectra"], ["cutout", "Cutouts"]], chooseKind);
  parts.stretches = segments("Stretch of cutouts", STRETCHES.map((name) => [name, name]), setStretch);
  parts.rankings = segments("Ranking", [["", "Raw ranking"], ["mine", "My ranking"]], setRanking);
  parts.rankings.hidden = true;
  parts.again = h("button", { type: "button", class: "accent", hidden: true, onclick: () => load() }, "Rank again");
  parts.search = h("input", { type: "search", id: "search", placeholder: "Object", "aria-label": "Object identity", maxlength: 1000 });
  parts.filters = h("div", { class: "filters", id: "filters", hidden: true });
  parts.filterButton = h("button", { type: "button", "aria-expanded": "false", "aria-controls": "filters", onclick: toggleFilters }, "Filters");
  parts.exports = h("span", { class: "exports" });
  parts.chips = h("span", { class: "chips" });
  parts.summary = h("p", { class: "summary" });
  parts.list = h("ol", { class: "cards", id: "cards", "aria-label": "Outliers, the highest scores first" });
  parts.more = h("button", { type: "button", class: "more", hidden: true, onclick: () => more() }, "More");
  const form = h("form", { class: "search", role: "search" }, parts.search);
  form.addEventListener("submit", search);
  fill(byId("gallery"),
    h("h1", { class: "unseen" }, "Outliers"),
    h("div", { class: "bar" }, parts.night, parts.kinds, parts.stretches, parts.rankings, parts.again,
      form, parts.filterButton, parts.exports),
    parts.filters,
    h("div", { class: "line" }, parts.summary, parts.chips),
    parts.list, parts.more);
  parts.list.addEventListener("focusin", (event) => {
    const item = event.target.closest(".card");
    if (item) choose([...parts.list.children].indexOf(item), false);
  });
  parts.list.addEventListener("click", (event) => {
    const item = event.target.closest(".card");
    if (!item || event.target.closest("a")) return;
    if (event.target.closest(".frame")) go(pageOf(item.row));
    else choose([...parts.list.children].indexOf(item));
  });
  new IntersectionObserver(([entry]) => { if (entry.isIntersecting) more(); }, { rootMargin: "600px" }).observe(parts.more);
}

/** Buttons of which one is pressed. */
export function segments(label, choices, chosen) {
  const group = h("div", { class: "segments", role: "group", "aria-label": label },
    choices.map(([value, name]) => h("button", { type: "button", "data-value": value, "aria-pressed": "false", onclick: () => chosen(value) }, name)));
  group.press = (value) => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.value === (value ?? "")));
  };
  return group;
}

/** Change the filters in the address: null or "" takes one away. */
function change(changes) {
  const query = currentQuery();
  for (const [name, value] of Object.entries(changes)) {
    query.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) if (one !== null && one !== "") query.append(name, one);
  }
  go(`#/?${query}`);
}

/** Another kind has other models, and with them other clusters and maps; a personal ranking is of one kind. */
function chooseKind(kind) {
  const ofModel = Object.fromEntries(["model", "cluster", "left", "bottom", "right", "top"].map((name) => [name, null]));
  change({ ...ofModel, kind, ...(kind ? {} : { ranking: null }) });
}

/** Show the gallery for the filters of the address; what is there already stays as it is. */
export async function show(query) {
  if (!parts.list) {
    build();
    features().then(offer, () => {});
    readModels().then(summarise);
  }
  const asked = query.toString();
  if (asked === state.asked) {
    redraw();
    choose(state.chosen, true);
    return;
  }
  state.asked = asked;
  if (!nights.length) {
    nights = await getJson("/nights").catch((problem) => { alarm(problem.message); return []; });
    fill(parts.night, nights.map((night) => h("option", { value: night }, night)), h("option", { value: "all" }, "All nights"));
  }
  parts.night.value = query.get("night") ?? nights[0] ?? "all";
  parts.kinds.press(query.get("kind"));
  parts.search.value = query.get("search") ?? "";
  parts.stretches.press(stretch);
  parts.stretches.hidden = query.get("kind") === "spectrum";
  parts.exports.hidden = query.has("left"); // an export knows no region of the map
  parts.rankings.press(query.get("ranking"));
  offeredRankings(query);
  fill(parts.chips, chips(query, change));
  filterForm(parts.filters, query, [...models.values()], change);
  await load();
}

/** The address of the rows that are wanted, without limit and page. */
function address(query, path = null) {
  const wanted = toQuery(query, nights[0]);
  if (path) return [path, wanted];
  if (query.has("left")) return ["/maps/latent/outliers", wanted];
  if (query.get("ranking") === "mine" && who()) wanted.set("for", who());
  return ["/outliers", wanted];
}

async function load() {
  state.turn += 1;
  Object.assign(state, { rows: [], next: null, chosen: 0, loading: false, ranked: saidHere() });
  parts.again.hidden = true;
  parts.list.setAttribute("aria-busy", "true");
  parts.more.hidden = true;
  if (!byId("gallery").hidden) window.scrollTo(0, 0);
  fill(parts.list, Array.from({ length: 8 }, () => h("li", { class: "card ghost", "aria-hidden": "true" }, h("div", { class: "frame waiting" }), h("div", { class: "caption" }))));
  parts.summary.textContent = "Reading the catalog …";
  await more(true);
  parts.list.removeAttribute("aria-busy");
}

async function more(first = false) {
  if (state.loading || (!first && !state.next)) return;
  state.loading = true;
  const turn = state.turn, query = new URLSearchParams(state.asked);
  const [path, wanted] = address(query);
  wanted.set("limit", String(PAGE));
  if (state.next) wanted.set("page", state.next);
  try {
    const [page] = await Promise.all([getJson(`${path}?${wanted}`), readModels()]);
    if (turn !== state.turn) return;
    const before = state.rows.length;
    state.rows.push(...page.items);
    state.next = page.next;
    state.needed = page.labels_needed ?? null;
    const cards = page.items.map((row, i) => card(row, { place: before + i + 1, models, stretch: () => stretch }));
    if (first) fill(parts.list, cards); else parts.list.append(...cards);
    if (first) {
      choose(0, false);
      const elsewhere = document.activeElement && !["BODY", "MAIN"].includes(document.activeElement.tagName);
      if (!elsewhere && cards[0] && !byId("gallery").hidden) cards[0].focus({ preventScroll: true });
    }
    state.loading = false;
    summarise();
    say(first ? spokenSummary() : `${page.items.length} more, ${state.rows.length} in all`);
    readLabels(page.items).catch((problem) => alarm(problem.message));
  } catch (problem) {
    if (turn !== state.turn) return;
    if (first) fill(parts.list);
    parts.summary.textContent = problem.message;
    say(problem.message);
  } finally {
    if (turn === state.turn) {
      state.loading = false;
      parts.more.hidden = !state.next;
    }
  }
}

function spokenSummary() {
  return state.rows.length ? `${state.rows.length}${state.next ? " or more" : ""} outliers` : "No object fits these filters";
}

function summarise() {
  if (!parts.summary) return;
  if (!state.rows.length) {
    if (!state.loading) parts.summary.textContent = nights.length ? "No object fits these filters. Take one away, or choose another night." : "Nothing has been scored yet: peculiar score brings the first night.";
    return;
  }
  const here = new Set(state.rows.map((row) => row.model));
  const limits = [...here].map((id) => models.get(id)).filter((model) => model?.smallest_p)
    .map((model) => `${number(model.smallest_p)} (${model.kind === "spectrum" ? "spectra" : "cutouts"})`);
  fill(parts.summary, h("strong", {}, `${count(state.rows.length)}${state.next ? "+" : ""}`), " shown, ", state.needed === 0 ? "by what your labels say" : "the most anomalous first",
    state.needed ? `; ${state.needed} more ${state.needed === 1 ? "label" : "labels"} of yours change the ranking` : null,
    limits.length ? h("span", { class: "dim" }, ` · smallest p resolved ${limits.join(", ")}`) : null);
}

/** Make a card the chosen one. */
export function choose(index, focus = true) {
  const items = parts.list?.children ?? [];
  if (!state.rows.length) return;
  const bounded = Math.max(0, Math.min(state.rows.length - 1, index));
  for (const item of parts.list.querySelectorAll(".chosen")) {
    item.classList.remove("chosen");
    item.tabIndex = -1;
    item.removeAttribute("aria-current");
  }
  state.chosen = bounded;
  const item = items[bounded];
  item.classList.add("chosen");
  item.tabIndex = 0;
  item.setAttribute("aria-current", "true");
  if (focus && !byId("gallery").hidden) {
    item.focus({ preventScroll: true });
    item.scrollIntoView({ block: "nearest" });
  }
  byId("dock").dispatchEvent(new Event("chosen"));
  if (bounded >= state.rows.length - 4) more();
}

/** Move by cards, or by rows of cards. */
export function move(right, down) {
  const items = [...parts.list.children];
  const columns = Math.max(1, items.filter((item) => item.offsetTop === items[0].offsetTop).length);
  choose(state.chosen + right + down * columns);
}

/** After a label: on to the next, and offer to rank anew. */
export function labelled() {
  if (!byId("gallery").hidden) choose(state.chosen + 1);
  offerAgain();
}

function offerAgain() {
  const n = saidHere() - state.ranked;
  parts.again.hidden = !(new URLSearchParams(state.asked).get("ranking") === "mine" && n > 0);
  parts.again.textContent = n === 1 ? "Rank again: 1 new label (r)" : `Rank again: ${n} new labels (r)`;
}

/** After an undo: back to where the label was. */
export function undone(id) {
  const at = state.rows.findIndex((row) => row.object_id === id);
  if (at >= 0) choose(at);
  offerAgain();
}

export function setStretch(name) {
  stretch = name;
  parts.stretches?.press(name);
  say(`${name} stretch`);
  redraw();
}

export function nextStretch() {
  setStretch(STRETCHES[(STRETCHES.indexOf(stretch) + 1) % STRETCHES.length]);
}

async function setRanking(ranking) {
  if (ranking === "mine" && !(await askWho())) return;
  if (currentQuery().get("ranking") === (ranking || null)) return;
  // labels change the ranking of one model, so a mixed gallery becomes that of the chosen object's kind
  const kind = currentQuery().get("kind") ?? (ranking === "mine" ? chosenRow()?.kind ?? "spectrum" : null);
  change({ ranking, kind });
}

export function toggleRanking() {
  if (!parts.rankings.hidden) setRanking(currentQuery().get("ranking") === "mine" ? "" : "mine");
}

export function rankAgain() {
  if (currentQuery().get("ranking") === "mine") load();
}

export function toggleFilters() {
  const open = parts.filters.hidden;
  parts.filters.hidden = !open;
  parts.filterButton.setAttribute("aria-expanded", String(open));
  if (open) parts.filters.querySelector("input, select")?.focus();
}

export const focusSearch = () => parts.search.focus();

async function search(event) {
  event.preventDefault();
  const text = parts.search.value.trim();
  const { filters } = await features();
  const byText = filters.find((one) => one.name === "search");
  if (byText) change({ [byText.name]: text, night: text ? "all" : null });
  else if (text) go(`#/object?${new URLSearchParams({ id: text })}`);
}

/** Personal rankings, where the service has them and no region of the map is chosen. */
const offeredRankings = async (query) => {
  const { ranking } = await features().catch(() => ({ ranking: false }));
  parts.rankings.hidden = !ranking || query.has("left");
};

/** Show what only some services can do. */
function offer({ formats }) {
  parts.rankings.title = "Ranked by what your own labels say (t)";
  if (formats.length) {
    const menu = h("details", {}, h("summary", {}, "Export"),
      h("ul", {}, formats.map((format) => h("li", {}, h("button", { type: "button", class: "quiet", "data-format": format, onclick: () => save(format, menu) }, format)))));
    fill(parts.exports, menu);
  }
}

/** Download the rows of these filters: a link, or through a request where it has to carry the key. */
async function save(format, menu) {
  menu.open = false;
  const [path, wanted] = address(new URLSearchParams(state.asked), "/outliers/export");
  wanted.set("format", format);
  const link = h("a", { href: `${path}?${wanted}`, download: `outliers.${format}` });
  try {
    if (hasKey()) link.href = URL.createObjectURL(await (await ask(`${path}?${wanted}`)).blob());
    document.body.append(link);
    link.click();
    link.remove();
    say(`Export as ${format}`);
  } catch (problem) {
    alarm(problem.message);
  }
}
