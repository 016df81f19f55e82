// Where one is: the part of the address after #, so that every view can be linked to.

export function here() {
  const [path, query = ""] = (location.hash.slice(1) || "/").split(/\?(.*)/s);
  return { path, query: new URLSearchParams(query) };
}

export const currentQuery = () => here().query;

export function go(hash) {
  const wanted = hash.endsWith("?") ? hash.slice(0, -1) : hash;
  if (location.hash === wanted) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = wanted;
}
