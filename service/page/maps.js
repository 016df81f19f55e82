// Reading the map that the address asks for: of one kind, of one night or of all.

import { getJson } from "./api.js";

export const kindOf = (query) => query.get("kind") ?? "spectrum";

/** A function of the address's query, and of what to say while one waits. It gives the `map` there, or the `problem`;
    only `again` where it is the map of the last time; nothing where somebody has asked for another one since. */
export function mapReader(path) {
  let turn = 0, shownFor = null;
  return async (query, wait) => {
    turn += 1;
    const mine = turn, night = query.get("night");
    const asked = new URLSearchParams({ kind: kindOf(query), ...(night && night !== "all" ? { night } : {}) }).toString();
    if (asked === shownFor) return { again: true };
    wait();
    try {
      const map = await getJson(`${path}?${asked}`);
      if (mine !== turn) return null;
      shownFor = asked;
      return { map };
    } catch (problem) {
      return mine === turn ? { map: null, problem } : null;
    }
  };
}
