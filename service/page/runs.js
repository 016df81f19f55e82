// Run health: what came, what was scored, what failed and why, what looks like an instrument problem.

import { getJson } from "./api.js";
import { byId, count, fill, h, instant, say } from "./dom.js";

const PAGE = 20;
const section = byId("runs");
let last = null, list = null, more = null;

export async function show() {
  list = h("ul", { class: "runs" });
  more = h("button", { type: "button", class: "more", hidden: true, onclick: () => load() }, "Older runs");
  last = null;
  fill(section, h("h1", {}, "Runs"), h("p", { class: "dim" }, "Every file ends as one score or one failure with its reason: found = scored + failed + queued."), list, more);
  await load();
}

async function load() {
  try {
    const query = new URLSearchParams({ limit: String(PAGE), ...(last ? { before: String(last) } : {}) });
    const runs = await getJson(`/runs?${query}`);
    list.append(...runs.map(item));
    last = runs.at(-1)?.id ?? last;
    more.hidden = runs.length < PAGE;
    if (!list.children.length) list.append(h("li", {}, "No run yet: peculiar score or peculiar nightly begins one."));
    say(`${runs.length} runs`);
  } catch (problem) {
    fill(more.parentElement.querySelector(".dim"), problem.message);
    say(problem.message);
  }
}

function item(run) {
  const problems = Object.entries(run.problems);
  const state = run.ended_at === null ? "going on" : problems.length ? "instrument problem?" : run.failed ? "ended, with failures" : "ended";
  const minutes = run.ended_at ? (new Date(run.ended_at) - new Date(run.started_at)) / 60000 : null;
  const parts = [["scored", run.scored], ["failed", run.failed], ["queued", run.queued]];
  const bar = h("div", { class: "shares", role: "img", "aria-label": parts.map(([name, n]) => `${n} ${name}`).join(", ") },
    parts.filter(([, n]) => n > 0).map(([name, n]) => {
      const part = h("span", { class: `share-${name}` });
      part.style.flexGrow = String(n);
      return part;
    }));
  const reasons = Object.entries(run.reasons).sort((a, b) => b[1] - a[1]);
  return h("li", { class: problems.length ? "run troubled" : "run" },
    h("div", { class: "run-head" }, h("h2", {}, h("a", { href: `#/?${new URLSearchParams({ night: run.night })}` }, run.night), h("span", { class: "dim" }, ` run ${run.id}${run.survey ? ` · ${run.survey}` : ""}`)),
      h("span", { class: "state" }, state)),
    bar,
    h("dl", { class: "figures" }, [["found", run.found], ...parts].map(([name, n]) => h("div", {}, h("dt", {}, name), h("dd", {}, count(n))))),
    h("p", { class: "dim" }, `${instant(run.started_at)}${minutes === null ? "" : ` · ${minutes < 1 ? `${Math.round(60 * minutes)} s` : `${Math.round(minutes)} min`}`} · ${Object.values(run.models).join(", ")}`),
    problems.map(([model, text]) => h("p", { class: "problem" }, `${model}: ${text}. Its discoveries are withheld.`)),
    reasons.length ? h("details", {}, h("summary", {}, `Why ${count(run.failed)} failed`), h("table", {}, h("tbody", {}, reasons.map(([reason, n]) => h("tr", {}, h("td", { class: "value" }, count(n)), h("td", {}, reason)))))) : null);
}
