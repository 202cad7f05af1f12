// The interactive front: two quantities of every point, filters, hover, keyboard.

const svg = document.getElementById("plot");
const tip = document.getElementById("tip");
const said = document.getElementById("said");
const tally = document.getElementById("tally");
const FEW = 150; // as in studies/figures.py: with more points only those of the line have error bars
const REACH = 22; // pixels from a mark at which it is hovered
const ALPHA = { front: 1, undecided: 0.75, dominated: 0.4, infeasible: 0.7, unjudged: 0.4 };
const quantities = new Map(data.quantities.map((q) => [q.key, q]));
const [xFirst, yFirst] = data.axes;
const state = {
  x: xFirst, y: yFirst, logX: quantities.get(xFirst)?.log ?? true, logY: quantities.get(yFirst)?.log ?? true,
  hidden: { student: new Set(), family: new Set(), standing: new Set() },
  at: null, // the point that hover or the keyboard is on
};
let marks = []; // { i, x, y } of what is drawn, in pixels, by rising x

/** The objective by which points stand on the shown axes: that of an axis, else the study's first. */
function judgedBy() {
  const shown = data.trains && state.y === "score" ? state.x : data.trains && state.x === "score" ? state.y : "";
  return shown in points.standing ? shown : data.objectives[0];
}
let standings = points.standing[judgedBy()]; // of the shown axes
const standingOf = (i) => STANDINGS[standings[i]];

function shown(i) {
  return !state.hidden.student.has(points.student[i])
    && !state.hidden.family.has(machineOf(i).family)
    && !state.hidden.standing.has(standingOf(i));
}

const barOf = (q, i, barred) => (q.low && barred.has(i) ? [q.low[i], q.high[i]] : [q.value[i], q.value[i]]);

/** Ends of an axis around the values of points, a little wider; a log axis spans some part of a decade. */
function extent(q, indices, log, barred) {
  let low = Infinity, high = -Infinity;
  for (const i of indices) {
    const [a, b] = barOf(q, i, barred);
    if (a < low && (!log || a > 0)) low = a;
    if (b > high) high = b;
  }
  low *= q.factor;
  high *= q.factor;
  if (log) {
    const pad = Math.max((high / low) ** 0.06, high / low < 2 ? 1.3 : 1.05);
    return [low / pad, high * pad];
  }
  const pad = 0.06 * (high - low) || 0.5 * Math.abs(high) || 1;
  return [low - pad, high + pad];
}

/** Feasible points that none of those given beats in both quantities, from the best x to the best y. */
function frontLine(indices, qx, qy) {
  const [sx, sy] = [qx, qy].map((q) => (q.more_is_better ? -1 : 1));
  const able = indices.filter((i) => standingOf(i) !== "infeasible");
  able.sort((a, b) => sx * (qx.value[a] - qx.value[b]) || sy * (qy.value[a] - qy.value[b]));
  let best = Infinity;
  return able.filter((i) => sy * qy.value[i] < best && ((best = sy * qy.value[i]), true));
}

function draw() {
  const qx = quantities.get(state.x), qy = quantities.get(state.y);
  standings = points.standing[judgedBy()];
  const width = Math.max(280, svg.parentElement.clientWidth), height = Math.min(480, Math.max(330, 0.58 * width));
  const box = { left: 62, right: width - 12, top: 12, bottom: height - 46 };
  const wanted = [...points.student.keys()].filter(shown);
  const positive = (q, log, i) => q.value[i] !== null && (!log || q.value[i] > 0);
  const indices = wanted.filter((i) => positive(qx, state.logX, i) && positive(qy, state.logY, i));
  const few = indices.length <= FEW;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  marks = [];
  const without = wanted.length - indices.length;
  tally.textContent = `${count(indices.length)} of ${count(points.student.length)} points shown`
    + (without ? `; ${count(without)} have no such number` : "") + ".";
  if (!indices.length) return;
  const front = frontLine(indices, qx, qy);
  const barred = new Set(few ? indices : front);
  const [xs, ys] = [[qx, state.logX, box.left, box.right], [qy, state.logY, box.bottom, box.top]].map(
    ([q, log, from, to]) => scale(...extent(q, indices, log, barred), from, to, log));
  drawAxes(qx, qy, xs, ys, box);
  const px = (v) => xs.at(v * qx.factor), py = (v) => ys.at(v * qy.factor);
  drawLimits(qx, qy, px, py, box);
  const line = front.map((i) => [px(qx.value[i]), py(qy.value[i])]);
  const path = line.map(([x, y], n) => (n ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}`)).join("");
  const order = indices.map((i) => [STANDINGS.indexOf(standingOf(i)), i]).sort((a, b) => b[0] - a[0]);
  const drawn = [];
  for (const [, i] of order) {
    const standing = standingOf(i), x = px(qx.value[i]), y = py(qy.value[i]);
    const colour = `var(--series-${points.student[i] % SERIES})`;
    const r = standing === "front" ? (few ? 6 : 4.5) : few ? 4.5 : 2.6;
    const hollow = standing === "infeasible";
    const d = shape(machineOf(i).family, x, y, r);
    let bars = "";
    if (qx.low && barred.has(i)) bars += `M${px(Math.max(qx.low[i], 1e-30)).toFixed(1)} ${y.toFixed(1)}H${px(qx.high[i]).toFixed(1)}`;
    if (qy.low && barred.has(i)) bars += `M${x.toFixed(1)} ${py(qy.low[i]).toFixed(1)}V${py(qy.high[i]).toFixed(1)}`;
    drawn.push(`<g data-point="${i}" opacity="${ALPHA[standing]}">${bars ? `<path d="${bars}" style="stroke:${colour}" class="bar"/>` : ""}`
      + `<path d="${d}" class="mark-${hollow ? "hollow" : "full"}" style="${hollow ? "stroke" : "fill"}:${colour}"/></g>`);
    marks.push({ i, x, y });
  }
  const group = svgEl("g");
  group.innerHTML = drawn.join(""); // numbers alone; ten thousand elements are built four times as fast
  svg.append(group, svgEl("path", { d: path, class: "front-line" }), svgEl("circle", { id: "ring", r: 10, class: "ring", visibility: "hidden" }));
  marks.sort((a, b) => a.x - b.x || b.y - a.y);
  if (state.at !== null) point(marks.some((m) => m.i === state.at) ? state.at : null);
}

function drawAxes(qx, qy, xs, ys, box) {
  for (const v of xs.ticks) {
    const x = xs.at(v).toFixed(1);
    svg.append(svgEl("path", { d: `M${x} ${box.top}V${box.bottom}`, class: "grid" }),
      svgEl("text", { x, y: box.bottom + 17, "text-anchor": "middle" }, tickText(v)));
  }
  for (const v of ys.ticks) {
    const y = ys.at(v);
    svg.append(svgEl("path", { d: `M${box.left} ${y.toFixed(1)}H${box.right}`, class: "grid" }),
      svgEl("text", { x: box.left - 7, y: y + 4, "text-anchor": "end" }, tickText(v)));
  }
  const middle = (box.top + box.bottom) / 2;
  svg.append(svgEl("path", { d: `M${box.left} ${box.top}V${box.bottom}H${box.right}`, class: "axis" }),
    svgEl("text", { x: (box.left + box.right) / 2, y: box.bottom + 38, "text-anchor": "middle", class: "label" }, qx.axis),
    svgEl("text", { x: 14, y: middle, transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle", class: "label" }, qy.axis));
}

/** Dashed lines where a constraint of the study limits a shown quantity. */
function drawLimits(qx, qy, px, py, box) {
  for (const c of data.constraints) {
    const limit = c.at_most ?? c.at_least;
    if (c.column === state.x) {
      const x = px(limit);
      if (x > box.left && x < box.right) svg.append(svgEl("path", { d: `M${x.toFixed(1)} ${box.top}V${box.bottom}`, class: "limit" }));
    } else if (c.column === state.y) {
      const y = py(limit);
      if (y > box.top && y < box.bottom) svg.append(svgEl("path", { d: `M${box.left} ${y.toFixed(1)}H${box.right}`, class: "limit" }));
    }
  }
}

/** Put hover or keyboard on a point: ring, card, and what a screen reader says. None: on nothing. */
function point(i, aloud = false) {
  state.at = i;
  const ring = document.getElementById("ring");
  const mark = marks.find((m) => m.i === i);
  tip.hidden = !mark;
  ring?.setAttribute("visibility", mark ? "visible" : "hidden");
  if (!mark) return;
  ring.setAttribute("cx", mark.x);
  ring.setAttribute("cy", mark.y);
  const standing = standingText(i);
  tip.replaceChildren(el("strong", {}, nameOf(i)), el("span", { class: "standing" }, standing),
    el("dl", {}, ...data.quantities.flatMap((q) => [el("dt", {}, q.name), el("dd", {}, quantityText(q, i))])));
  const room = svg.parentElement.clientWidth, factor = svg.clientWidth / svg.viewBox.baseVal.width;
  const left = mark.x * factor, below = mark.y * factor;
  tip.style.left = `${Math.max(0, Math.min(left + 14, room - tip.offsetWidth))}px`;
  tip.style.top = `${below - tip.offsetHeight - 14 > 0 ? below - tip.offsetHeight - 14 : below + 18}px`;
  if (aloud) said.textContent = `${nameOf(i)}, ${standing}. ${data.quantities.map((q) => `${q.name} ${quantityText(q, i)}`).join(", ")}`;
}

function standingText(i) {
  const why = points.infeasible[i];
  return data.standing_text[standingOf(i)] + (why ? `: ${why}` : "");
}

function nearest(event) {
  const rect = svg.getBoundingClientRect(), factor = svg.viewBox.baseVal.width / rect.width;
  const x = (event.clientX - rect.left) * factor, y = (event.clientY - rect.top) * factor;
  let found = null, least = REACH ** 2;
  for (const m of marks) {
    const d = (m.x - x) ** 2 + (m.y - y) ** 2;
    if (d < least) [found, least] = [m.i, d];
  }
  return found;
}

svg.addEventListener("pointermove", (event) => point(nearest(event)));
svg.addEventListener("pointerleave", () => point(null));
svg.addEventListener("click", (event) => {
  const i = nearest(event);
  if (i !== null) openPanel(i);
});
svg.addEventListener("focus", () => {
  if (state.at === null && marks.length && svg.matches(":focus-visible")) point((marks.find((m) => standingOf(m.i) === "front") ?? marks[0]).i, true);
});
svg.addEventListener("blur", () => point(null));
svg.addEventListener("keydown", (event) => {
  const byY = event.key === "ArrowUp" || event.key === "ArrowDown";
  const order = byY ? [...marks].sort((a, b) => b.y - a.y || a.x - b.x) : marks;
  const here = order.findIndex((m) => m.i === state.at);
  const steps = { ArrowRight: here + 1, ArrowLeft: here < 0 ? 0 : here - 1, ArrowUp: here + 1, ArrowDown: here < 0 ? 0 : here - 1, Home: 0, End: order.length - 1 };
  if (event.key in steps && order.length) point(order[Math.max(0, Math.min(order.length - 1, steps[event.key]))].i, true);
  else if ((event.key === "Enter" || event.key === " ") && state.at !== null) openPanel(state.at);
  else if (event.key === "Escape") point(null);
  else return;
  event.preventDefault();
});

/** A list of check boxes; each hides its points while it is not checked. */
function filterEl(legend, kind, entries) {
  const boxes = entries.map(([value, text, sample]) => el("label", {},
    el("input", { type: "checkbox", checked: true, onchange: (event) => {
      state.hidden[kind][event.target.checked ? "delete" : "add"](value);
      draw();
    } }), sample, text));
  return el("fieldset", { "data-filter": kind }, el("legend", {}, legend), ...boxes);
}

function sampleEl(path, style) {
  const sample = svgEl("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" });
  sample.append(svgEl("path", { d: path, style }));
  return sample;
}

function axisEl(name, axis, log) {
  const select = el("select", { id: `axis-${axis}`, onchange: (event) => {
    state[axis] = event.target.value;
    state[log] = box.checked = quantities.get(state[axis]).log;
    draw();
    describe();
  } }, ...data.quantities.map((q) => el("option", { value: q.key, selected: q.key === state[axis] }, q.name)));
  const box = el("input", { type: "checkbox", id: `log-${axis}`, onchange: () => { state[log] = box.checked; draw(); } });
  box.checked = state[log];
  return el("span", { class: "axis-choice" }, el("label", { for: `axis-${axis}` }, name), select, el("label", {}, box, "log"));
}

const standingLegend = el("legend", {});
function describe() {
  const names = data.objectives.map((key) => quantities.get(key)?.name.toLowerCase() ?? key);
  standingLegend.textContent = data.trains
    ? `Standing (${quantities.get("score")?.name.toLowerCase()} against ${quantities.get(judgedBy())?.name.toLowerCase()})`
    : `Standing (${names.join(", ")} together)`;
}

function buildControls() {
  const controls = document.getElementById("controls");
  const swatch = (i) => sampleEl(shape(0, 8, 8, 6), `fill:var(--series-${i % SERIES})`);
  const standings = STANDINGS.filter((_, n) => Object.values(points.standing).some((each) => each.includes(n)));
  const standing = filterEl("", "standing", standings.map((name) => [name, data.standing_text[name],
    sampleEl(shape(0, 8, 8, name === "front" ? 6 : 4.5), name === "infeasible" ? "fill:none;stroke:var(--muted);stroke-width:1.5" : `fill:var(--muted);opacity:${ALPHA[name]}`)]));
  standing.firstChild.replaceWith(standingLegend);
  controls.append(el("div", { class: "axes-choice" }, axisEl("Across", "x", "logX"), axisEl("Up", "y", "logY")));
  document.getElementById("filters").append(
    filterEl(data.trains ? "Student" : "Model", "student", data.students.map((s, i) => [i, s.name, swatch(i)])),
    filterEl("Machine", "family", data.families.map((name, i) => [i, name, sampleEl(shape(i, 8, 8, 5.5), "fill:var(--muted)")])),
    standing);
  describe();
}
