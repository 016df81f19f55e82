// Labels: what people say, saying it oneself, taking it back. Shown at once, sent in order, tried again until it is kept.

import { getJson, objectPath, postJson } from "./api.js";
import { alarm, askFor, byId, say } from "./dom.js";

export const WORDS = [
  { key: "i", word: "interesting", name: "Interesting" },
  { key: "l", word: "lens", name: "Lens" },
  { key: "a", word: "artefact", name: "Artefact" },
  { key: "k", word: "known", name: "Known" },
  { key: "w", word: "wrong-redshift", name: "Wrong redshift" },
];
const WITHDRAWN = "withdrawn";
const WHO = "peculiar.who", UNSENT = "peculiar.unsent";
const ADDRESS = 4000; // characters of a URL that every server takes
const SLOWEST = 60000; // ms between two tries

const said = new Map(); // identity → Map(by → label)
const done = []; // what undo takes back, the last at the end
let waiting = JSON.parse(localStorage.getItem(UNSENT) ?? "[]");
let sending = false, pause = 1000, closeAlarm = null, timer = null;

/** Told whenever what is said of an object has changed: f(object_id). */
export const watchers = new Set();

/** Labels said by this person since the page was opened, undone ones left out. */
export const saidHere = () => done.length;

export const who = () => localStorage.getItem(WHO);

/** Ask who labels, once; null when nobody says so. */
export async function askWho(always = false) {
  if (who() && !always) return who();
  const name = await askFor("Who labels?", "Every label is kept with its author and time. Your name stays in this browser.", "text", "Your name");
  if (name) {
    localStorage.setItem(WHO, name);
    showWho();
  }
  return name;
}

export function showWho() {
  byId("who").textContent = who() ? `as ${who()}` : "Who labels?";
}

/** What people say of a row's object now: [[by, label], …]. */
export const labelsOf = (row) => [...(said.get(row.object_id) ?? new Map())];

/** Read what is said of these rows' objects; what is not sent yet counts as said. */
export async function readLabels(rows) {
  const names = [...new Set(rows.map((row) => row.object_id))];
  while (names.length) {
    const query = new URLSearchParams();
    const asked = [];
    do {
      asked.push(names.shift());
      query.append("object_id", asked.at(-1));
    } while (names.length && asked.length < 100 && query.toString().length + 3 * names[0].length < ADDRESS);
    const found = await getJson(`/labels?${query}`);
    for (const id of asked) said.set(id, new Map());
    for (const one of found) said.get(one.object_id)?.set(one.by, one.label);
    for (const one of waiting) if (asked.includes(one.object_id)) apply(one);
    for (const id of asked) tell(id);
  }
}

function apply({ object_id: id, by, label }) {
  if (!said.has(id)) said.set(id, new Map());
  if (label === WITHDRAWN) said.get(id).delete(by);
  else said.get(id).set(by, label);
}

const tell = (id) => watchers.forEach((watcher) => watcher(id));

/** Say something of a row's object. Returns whether it was said. */
export async function label(row, word) {
  const by = await askWho();
  if (!by) return false;
  const former = said.get(row.object_id)?.get(by) ?? null;
  if (former === word) {
    say(`${row.object_id} is called ${word} by you already`);
    return true;
  }
  done.push({ object_id: row.object_id, by, former, label: word });
  send({ object_id: row.object_id, by, label: word });
  say(`${row.object_id}: ${word}`);
  return true;
}

/** Take the last label back: say again what was said before, or withdraw. Returns the object's identity or null. */
export function undo() {
  const last = done.pop();
  if (!last) {
    say("There is nothing to undo");
    return null;
  }
  send({ object_id: last.object_id, by: last.by, label: last.former ?? WITHDRAWN });
  say(`${last.object_id}: ${last.label} taken back${last.former ? `, ${last.former} again` : ""}`);
  return last.object_id;
}

function send(one) {
  apply(one);
  waiting.push(one);
  keep();
  tell(one.object_id);
  flush();
}

const keep = () => localStorage.setItem(UNSENT, JSON.stringify(waiting));

/** Whether a label on this object is still on its way. */
export const isUnsent = (id) => waiting.some((one) => one.object_id === id);

/** Send what waits, one after the other, so that the newest stays the newest. */
export async function flush() {
  if (sending) return;
  sending = true;
  clearTimeout(timer);
  while (waiting.length) {
    const one = waiting[0];
    try {
      await postJson(objectPath(one, "/labels"), { label: one.label, by: one.by });
    } catch (problem) {
      if (problem.status === 0 || problem.status >= 500 || problem.status === 429 || problem.status === 401) {
        closeAlarm?.();
        const n = waiting.length === 1 ? "A label is" : `${waiting.length} labels are`;
        closeAlarm = alarm(`${n} not saved yet: ${problem.message} Trying again.`, true);
        timer = setTimeout(flush, pause);
        pause = Math.min(2 * pause, SLOWEST);
        sending = false;
        return;
      }
      // Refused for good: what is shown goes back to what the catalog says.
      alarm(`“${one.label}” for ${one.object_id} was not saved: ${problem.message}`);
      waiting.shift();
      keep();
      const at = done.findLastIndex((other) => other.object_id === one.object_id);
      if (at >= 0) done.splice(at, 1);
      await readLabels([one]).catch(() => {});
      continue;
    }
    waiting.shift();
    keep();
    tell(one.object_id);
  }
  closeAlarm?.();
  closeAlarm = null;
  pause = 1000;
  sending = false;
}

window.addEventListener("online", flush);
