// Asking the service: keys, waiting when it is busy, and errors as sentences.

import { askFor } from "./dom.js";

const KEY = "peculiar.key";
const BUSY_TRIES = 4;

/** What the service said went wrong; status 0 when it did not answer at all. */
export class Problem extends Error {
  constructor(status, detail, document = {}) {
    super(detail);
    this.status = status;
    this.document = document;
  }
}

let asking = null;

async function newKey(refused) {
  const why = refused ? "The key was not accepted: it is misspelt or revoked. " : "";
  asking ??= askFor("This service needs a key", `${why}Whoever runs the service makes one with “peculiar keys add”. It is kept until this tab is closed.`, "password", "Key")
    .finally(() => { asking = null; });
  const given = await asking;
  if (given) sessionStorage.setItem(KEY, given);
  return Boolean(given);
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** The response to a request. Raises Problem for every status from 400 on, and where there is no answer. */
export async function ask(path, { method = "GET", body, type, signal } = {}) {
  for (let tries = 1; ; tries += 1) {
    const headers = {};
    const key = sessionStorage.getItem(KEY);
    if (key) headers.Authorization = `Bearer ${key}`;
    if (type) headers["Content-Type"] = type;
    let response;
    try {
      response = await fetch(path, { method, body, headers, signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "The service does not answer.");
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const detail = problem.detail || `The service answered ${response.status} ${response.statusText}.`;
    if (response.status === 401 && (sessionStorage.getItem(KEY) !== key || await newKey(key !== null))) continue;
    if (response.status === 429 && tries < BUSY_TRIES) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * (Number(response.headers.get("Retry-After")) || 2)));
      continue;
    }
    throw new Problem(response.status, detail, problem);
  }
}

export const getJson = async (path, options) => (await ask(path, options)).json();

export const postJson = async (path, document) =>
  (await ask(path, { method: "POST", body: JSON.stringify(document), type: "application/json" })).json();

/** Path of an object's route, whatever characters its identity has. */
export const objectPath = (row, rest = "") => `/objects/${encodeURIComponent(row.object_id)}${rest}`;

/** The query that tells one object from others of the same identity. */
export const which = (row, more = {}) =>
  new URLSearchParams({ kind: row.kind, survey: row.survey, ...(row.model ? { model: row.model } : {}), ...more });

let described = null;

/** What this service can do, from its own document: filters of the gallery, personal rankings, uploads, exports. */
export function features() {
  described ??= getJson("/openapi.json").then((document) => {
    const paths = document.paths;
    const parameters = paths["/outliers"].get.parameters ?? [];
    const names = parameters.map((one) => one.name);
    const exporting = paths["/outliers/export"]?.get;
    const format = exporting?.parameters?.find((one) => one.name === "format");
    return {
      filters: parameters.filter((one) => !["limit", "page", "for"].includes(one.name)).map(plain),
      ranking: names.includes("for"),
      upload: Boolean(paths["/neighbours"]?.post),
      uploadTakes: (paths["/neighbours"]?.post?.parameters ?? []).map((one) => one.name),
      formats: exporting ? plain(format ?? { schema: {} }).choices ?? ["csv", "vot", "fits", "parquet"] : [],
    };
  }, (error) => { described = null; throw error; });
  return described;
}

/** A parameter of an OpenAPI document as {name, description, type, open, choices, list}; open where null is an answer. */
function plain(parameter) {
  let schema = parameter.schema ?? {};
  const of = schema.anyOf?.find((one) => one.type !== "null");
  if (of) schema = { ...schema, ...of };
  const list = schema.type === "array";
  if (list) schema = { ...schema, ...schema.items };
  return {
    name: parameter.name,
    description: parameter.description ?? schema.description ?? "",
    type: schema.format === "date" ? "date" : schema.type ?? "string",
    open: Boolean(of),
    choices: schema.enum ?? null,
    list,
  };
}
