// Numbers as people read them (the rules of studies/text.py), and the elements that hold them.

const data = JSON.parse(document.getElementById("data").textContent);
const points = data.points;
const STANDINGS = Object.keys(data.standing_text);
const SERIES = 8, PARTS = 12;
const SVG = document.getElementById("plot").namespaceURI;

function si(value, unit) {
  if (value === 0) return `0\u00a0${unit}`;
  const prefixes = [[1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"], [1e-12, "p"]];
  const [factor, prefix] = prefixes.find(([f]) => Math.abs(value) >= 0.9995 * f) ?? prefixes.at(-1);
  const scaled = value / factor;
  const digits = Math.abs(scaled) < 9.995 ? 2 : Math.abs(scaled) < 99.95 ? 1 : 0;
  return `${scaled.toFixed(digits)}\u00a0${prefix}${unit}`;
}

const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
const joules = (pj) => si(pj * 1e-12, "J");
const count = (n) => Math.round(n).toLocaleString("en");
const bytes = (n) => (n < 1024 ? `${count(n)}\u00a0B` : `${(n / 1024).toFixed(1)}\u00a0KiB`);

const UNITS = {
  share: percent,
  number: (v) => v.toFixed(2),
  pJ: joules,
  s: (v) => si(v, "s"),
  um2: (v) => `${(v / 1e6).toFixed(3)}\u00a0mm²`,
  B: bytes,
};

/** A quantity of a point with its error bar; a dash where it has none. */
function quantityText(q, point) {
  const value = q.value[point];
  if (value === null) return "–";
  const text = UNITS[q.unit](value);
  if (!q.low || q.low[point] === q.high[point]) return text;
  return `${text} (${UNITS[q.unit](q.low[point])} to ${UNITS[q.unit](q.high[point])})`;
}

const studentOf = (i) => data.students[points.student[i]];
const machineOf = (i) => data.machines[points.machine[i]];
const nameOf = (i) => `${studentOf(i).name} on ${machineOf(i).name}`;

/** Build an element; children are elements or texts, `on…` attributes are listeners. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function svgEl(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A table with a header row; the first cell of each line is its header. */
function tableEl(caption, heads, lines) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, ...lines.map((cells) => el("tr", {}, ...cells.map(
        (cell, i) => (i ? el("td", {}, cell) : el("th", { scope: "row" }, cell))))))));
}

/** Path of the n-th marker around (x, y): circle, square, triangles, diamond, plus, cross. */
function shape(n, x, y, r) {
  const polygon = (corners) => `M${corners.map(([a, b]) => `${(x + a * r).toFixed(1)} ${(y + b * r).toFixed(1)}`).join("L")}Z`;
  switch (n % SERIES) {
    case 0: return `M${(x - r).toFixed(1)} ${y.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
    case 1: return polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
    case 2: return polygon([[0, -1.15], [1.05, 0.85], [-1.05, 0.85]]);
    case 3: return polygon([[0, -1.25], [1.1, 0], [0, 1.25], [-1.1, 0]]);
    case 4: return polygon([[0, 1.15], [1.05, -0.85], [-1.05, -0.85]]);
    case 5: return polygon([[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]]);
    case 6: return polygon([[-1.1, -0.6], [-0.6, -1.1], [0, -0.5], [0.6, -1.1], [1.1, -0.6], [0.5, 0], [1.1, 0.6], [0.6, 1.1], [0, 0.5], [-0.6, 1.1], [-1.1, 0.6], [-0.5, 0]]);
    default: return polygon([[-1.15, 0], [0.85, 1.05], [0.85, -1.05]]);
  }
}

/** Where a scale puts a value, with the ticks that fit: { at, ticks }. */
function scale(low, high, from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  const [a, b] = [f(low), f(high)];
  const at = (value) => from + ((f(value) - a) / (b - a)) * (to - from);
  const room = Math.abs(to - from) / 70;
  let ticks = [];
  if (log) {
    for (const steps of [[1, 2, 5], [1, 3], [1]]) {
      ticks = [];
      for (let e = Math.floor(a); e <= Math.ceil(b); e++) {
        for (const s of steps) if (s * 10 ** e >= low && s * 10 ** e <= high) ticks.push(s * 10 ** e);
      }
      if (ticks.length <= room) break;
    }
  }
  if (!log || ticks.length < 3) {
    const raw = (high - low) / Math.max(2, room);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((s) => s * power >= raw) * power;
    ticks = [];
    for (let n = Math.ceil(low / step); n * step <= high * (1 + 1e-9); n++) ticks.push(n * step);
  }
  return { at, ticks };
}

const tickText = (v) => String(Number(v.toPrecision(4)));
