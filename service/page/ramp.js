// One scale of colours for maps: from the page's night blue through violet to its amber, equally spaced in lightness.

const STOPS = [[38, 50, 92], [78, 62, 128], [134, 70, 134], [190, 84, 112], [226, 120, 82], [244, 171, 84], [252, 226, 150]];

/** The colour of a share between 0 and 1. */
export function ramp(share) {
  const t = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0)) * (STOPS.length - 1);
  const i = Math.min(STOPS.length - 2, Math.floor(t));
  const mixed = STOPS[i].map((from, k) => Math.round(from + (t - i) * (STOPS[i + 1][k] - from)));
  return `rgb(${mixed.join(",")})`;
}
