// One scale of colours for maps: from the page's night blue through violet to its amber, equally spaced in lightness.

/** Maps have a night's ground under either theme: the scale is made for it. */
export const NIGHT = { ground: "#10151f", line: "#2a3447", dim: "#94a0b6", ink: "#e6ebf4", accent: "#ffd08a" };

const STOPS = [[46, 62, 112], [88, 72, 142], [134, 70, 134], [190, 84, 112], [226, 120, 82], [244, 171, 84], [252, 226, 150]];

/** The colour of a share between 0 and 1. */
export function ramp(share) {
  const t = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0)) * (STOPS.length - 1);
  const i = Math.min(STOPS.length - 2, Math.floor(t));
  const mixed = STOPS[i].map((from, k) => Math.round(from + (t - i) * (STOPS[i + 1][k] - from)));
  return `rgb(${mixed.join(",")})`;
}
