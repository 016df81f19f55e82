// Elements, numbers as people write them, and what is said to a screen reader.

/** An element: h("p", {class: "dim", onclick: f}, "text", child). Data only ever becomes text or an attribute. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else if (name === "checked" || name === "open") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Put these in place of whatever an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** A number with some significant digits: 0.0033, 4.1 × 10⁻⁵. */
export function number(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    return `${mantissa.replace("-", "−")} × 10${[...String(Number(power))].map((c) => RAISED[c]).join("")}`;
  }
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(places, 6)).replace("-", "−");
}

export const fixed = (value, places) =>
  value === null || value === undefined ? "–" : value.toFixed(places).replace("-", "−");

export const count = (value) => value.toLocaleString("en-GB").replaceAll(",", "\u202f");

/** An instant as 2026-03-01 16:04 UTC. */
export const instant = (text) => (text ? `${text.slice(0, 10)} ${text.slice(11, 16)} UTC` : "–");

/** Tell whoever does not see the page what has changed. */
export function say(text) {
  const status = byId("status");
  status.textContent = status.textContent === text ? `${text}\u00a0` : text;
}

/** Show what went wrong until it is dismissed or has been seen for a while; returns a function that removes it. */
export function alarm(text, lasting = false) {
  const close = () => box.remove();
  const box = h("div", { class: "alert" }, h("span", {}, text),
    h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: close }, "×"));
  byId("alerts").append(box);
  if (!lasting) setTimeout(close, 12000);
  return close;
}

/** A native dialog with a heading; resolves with its return value when it closes. */
export function dialog(title, ...content) {
  const id = `dialog-${Math.random().toString(36).slice(2)}`;
  const box = h("dialog", { "aria-labelledby": id }, h("h2", { id }, title), content);
  document.body.append(box);
  const before = document.activeElement;
  const done = new Promise((resolve) => {
    box.addEventListener("close", () => {
      box.remove();
      if (before && before.isConnected) before.focus({ preventScroll: true });
      resolve(box.returnValue);
    });
  });
  box.addEventListener("click", (event) => { if (event.target === box) box.close(""); });
  box.showModal();
  return { box, done };
}

/** Ask for one line of text; null when it is not given. */
export async function askFor(title, text, type = "text", label = title) {
  const input = h("input", { type, required: true, maxlength: type === "password" ? 500 : 100, autocomplete: "off", "aria-label": label });
  const form = h("form", { method: "dialog" }, h("p", {}, text), input,
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => shown.box.close("") }, "Not now"),
      h("button", { class: "primary", value: "yes" }, "Go on")));
  const shown = dialog(title, form);
  input.focus();
  const answer = await shown.done;
  return answer === "yes" && input.value.trim() ? input.value.trim() : null;
}

/** The value of a colour of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
