// What one point consists of: what it was set to, its energy and cycles operator by operator, roofline, memory.

const panel = document.getElementById("panel");
const MOST_OPERATORS = 24; // lines of the table of operators; the others are one line
const OPERATOR = { name: 0, op: 1, unit: 2, binding: 3, count: 4, cycles: 5, compute: 6, pj: 7, macs: 8, bytes: 9 };
const text = (n) => data.names[n];

function openPanel(i) {
  const student = studentOf(i), machine = machineOf(i), detail = data.details[i];
  const set = machine.settings.map(([key, value]) => `${key} = ${value}`);
  const facts = [
    ["Standing", standingText(i)],
    ["Recipe", student.recipe],
    ["Machine", `${data.families[machine.family]}${set.length ? `, with ${set.join(", ")}` : " as it is"}`],
    ...data.quantities.map((q) => [q.name, quantityText(q, i)]),
    ["Seeds", data.trains ? String(points.seeds[i]) : "none: random weights"],
  ];
  if (points.assumed[i] !== null) facts.push(["Assumed", `${percent(points.assumed[i])} of the joules rest on unit energies without a source`]);
  panel.replaceChildren(
    el("div", { class: "panel-head" },
      el("h3", { id: "panel-title" }, nameOf(i)),
      el("button", { type: "button", class: "quiet", onclick: closePanel }, "Close")),
    el("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    componentsEl(i),
    ...(detail ? detailEls(detail) : [el("p", { class: "absent" }, whyAbsent(i))]),
    el("p", {}, "The same inference with every count (in the folder of this report):"),
    el("pre", { tabindex: "0" }, `python -m hwsim run ${text(points.model[i])} ${machine.options} --cost`));
  panel.hidden = false;
  panel.dataset.point = i;
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

function closePanel() {
  panel.hidden = true;
  svg.focus();
}
panel.addEventListener("keydown", (event) => { if (event.key === "Escape") closePanel(); });

function whyAbsent(i) {
  if (!data.has_nodes) return "This folder was moved without its nodes/: the operators of its points stayed there. Put nodes/ beside this report and write it again with python -m studies.report; the command below needs it, too.";
  if (data.details[i] === null) return "The folder of this point's node holds no operators.json. The command below makes the numbers again.";
  return `This page holds the operators of ${count(Object.values(data.details).filter(Boolean).length)} points, those of the front first; this one's are printed by the command below.`;
}

/** One bar of shares with a legend that has the numbers. `parts` are [name, value], the largest first. */
function stackEl(title, parts, write, colours) {
  const total = parts.reduce((sum, [, value]) => sum + value, 0);
  const label = (name, value) => `${name}: ${write(value)}, ${percent(value / total)}`;
  const colour = (name, n) => `background:var(--part-${(colours?.get(name) ?? n) % PARTS})`;
  return el("figure", { class: "stack" }, el("figcaption", {}, `${title}: ${write(total)}`),
    el("div", { class: "stack-bar", role: "img", "aria-label": parts.map(([n, v]) => label(n, v)).join("; ") },
      ...parts.map(([name, value], n) => el("span", { style: `${colour(name, n)};flex-grow:${value / total}`, title: label(name, value) }))),
    el("ul", { class: "stack-legend" }, ...parts.map(([name, value], n) => el("li", {},
      el("span", { class: "swatch", style: colour(name, n) }), name, " ", el("span", { class: "number" }, `${write(value)}, ${percent(value / total)}`)))));
}

const falling = (map) => [...map].filter(([, v]) => v > 0).sort((a, b) => b[1] - a[1]);

function componentsEl(i) {
  const flat = data.components.pj[i], sums = new Map();
  for (let n = 0; n < flat.length; n += 2) sums.set(data.components.names[flat[n]], flat[n + 1]);
  return stackEl("Energy by component", falling(sums), joules);
}

function detailEls(detail) {
  const sums = (column) => {
    const found = new Map();
    for (const row of detail.rows) found.set(text(row[OPERATOR.op]), (found.get(text(row[OPERATOR.op])) ?? 0) + row[column]);
    return falling(found);
  };
  const byEnergy = sums(OPERATOR.pj);
  const colours = new Map(byEnergy.map(([name], n) => [name, n])); // a kind of operator keeps its colour
  return [
    stackEl("Energy by kind of operator", byEnergy, joules, colours),
    stackEl("Cycles by kind of operator", sums(OPERATOR.cycles), (n) => `${count(n)} cycles`, colours),
    operatorTable(detail),
    layerTable(detail),
    rooflineEl(detail, colours),
    memoryEl(detail),
  ];
}

function barCell(value, total, write) {
  return el("span", { class: "bar-cell", style: `--share:${((100 * value) / total).toFixed(1)}%` }, write(value), el("small", {}, percent(value / total)));
}

function operatorTable(detail) {
  const total = (column) => detail.rows.reduce((sum, row) => sum + row[column], 0);
  const [pj, cycles] = [total(OPERATOR.pj), total(OPERATOR.cycles)];
  const rows = [...detail.rows].sort((a, b) => b[OPERATOR.pj] - a[OPERATOR.pj]);
  const lines = rows.slice(0, MOST_OPERATORS).map((row) => [text(row[OPERATOR.name]), text(row[OPERATOR.op]), count(row[OPERATOR.count]),
    barCell(row[OPERATOR.pj], pj, joules), barCell(row[OPERATOR.cycles], cycles, count), text(row[OPERATOR.unit]), text(row[OPERATOR.binding])]);
  const rest = rows.slice(MOST_OPERATORS);
  if (rest.length) {
    const sum = (column) => rest.reduce((s, row) => s + row[column], 0);
    lines.push(["all others", "", count(sum(OPERATOR.count)), barCell(sum(OPERATOR.pj), pj, joules), barCell(sum(OPERATOR.cycles), cycles, count), "", ""]);
  }
  return tableEl("Operators by energy; equal ones of several layers are one line, with * for the layer",
    ["Operator", "kind", "times", "energy", "cycles", "runs on", "bound by"], lines);
}

function layerTable(detail) {
  const pj = detail.layers.reduce((s, l) => s + l[2], 0), cycles = detail.layers.reduce((s, l) => s + l[1], 0);
  return tableEl("Layers", ["Layer", "energy", "cycles"],
    detail.layers.map(([name, c, e]) => [text(name), barCell(e, pj, joules), barCell(c, cycles, count)]));
}

/** Attained MAC a cycle over MAC a byte of DRAM traffic, as `hwsim plot` draws it; products without traffic stand to the right. */
function rooflineEl(detail, colours) {
  const products = detail.rows.filter((row) => row[OPERATOR.macs] > 0);
  if (!detail.roofs.length || !products.length) return el("p", { class: "absent" }, "No roofline: the operators of this study were kept without their MAC.");
  const width = Math.max(280, Math.min(700, svg.parentElement.clientWidth)), height = 300;
  const strip = 70, left = 58, right = width - strip - 16, top = 14, bottom = height - 42;
  const rate = (row) => row[OPERATOR.macs] / row[OPERATOR.cycles], intensity = (row) => row[OPERATOR.macs] / row[OPERATOR.bytes];
  const peak = Math.max(...detail.roofs.map(([, r]) => r));
  const ridges = detail.roofs.map(([, r]) => r / detail.bus);
  const across = [...products.filter((row) => row[OPERATOR.bytes]).map(intensity), ...ridges];
  const xs = scale(Math.min(...across) / 3, Math.max(...across) * 6, left, right, true);
  const ys = scale(Math.min(...products.map(rate)) / 2, peak * 2.2, bottom, top, true);
  const [low, high] = [Math.min(...across) / 3, Math.max(...across) * 6];
  const chart = svgEl("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "roofline",
    "aria-label": "Roofline: MAC a cycle against MAC a byte of DRAM traffic; the table of operators has the numbers" });
  for (const v of xs.ticks) chart.append(svgEl("path", { d: `M${xs.at(v)} ${top}V${bottom}`, class: "grid" }), svgEl("text", { x: xs.at(v), y: bottom + 16, "text-anchor": "middle" }, tickText(v)));
  for (const v of ys.ticks) chart.append(svgEl("path", { d: `M${left} ${ys.at(v)}H${width - 8}`, class: "grid" }), svgEl("text", { x: left - 6, y: ys.at(v) + 4, "text-anchor": "end" }, tickText(v)));
  const bottomRate = Math.min(...products.map(rate)) / 2;
  const start = Math.max(low, bottomRate / detail.bus);
  chart.append(svgEl("path", { d: `M${xs.at(start)} ${ys.at(start * detail.bus)}L${xs.at(Math.max(...ridges))} ${ys.at(peak)}`, class: "roof" }));
  detail.roofs.forEach(([name, r], n) => chart.append(
    svgEl("path", { d: `M${xs.at(ridges[n])} ${ys.at(r)}H${width - 8}`, class: "roof" }),
    svgEl("text", { x: right, y: ys.at(r) - 5, "text-anchor": "end" }, `${text(name)}: ${tickText(r)} MAC a cycle`)));
  const cycles = detail.rows.reduce((s, row) => s + row[OPERATOR.cycles], 0);
  const column = width - strip / 2 - 8;
  for (const row of products) {
    const x = row[OPERATOR.bytes] ? Math.min(xs.at(intensity(row)), xs.at(high)) : column;
    const mark = svgEl("circle", { cx: x, cy: ys.at(rate(row)), r: 3 + 16 * Math.sqrt(row[OPERATOR.cycles] / cycles), class: "mark-full", opacity: 0.8,
      style: `fill:var(--part-${colours.get(text(row[OPERATOR.op])) % PARTS})` });
    mark.append(svgEl("title", {}, `${text(row[OPERATOR.name])}: ${tickText(rate(row))} MAC a cycle, ${row[OPERATOR.bytes] ? `${tickText(intensity(row))} MAC a byte` : "no DRAM traffic"}`));
    chart.append(mark);
  }
  chart.append(svgEl("path", { d: `M${left} ${top}V${bottom}H${right}M${right + 10} ${bottom}H${width - 8}`, class: "axis" }),
    svgEl("text", { x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle", class: "label" }, "MAC a byte of DRAM traffic"),
    svgEl("text", { x: column, y: bottom + 16, "text-anchor": "middle", class: "label" }, "no traffic"),
    svgEl("text", { x: 13, y: height / 2, transform: `rotate(-90 13 ${height / 2})`, "text-anchor": "middle", class: "label" }, "MAC a cycle"));
  return el("figure", {}, chart, el("figcaption", {}, `Roofline of the products (Williams, Waterman, Patterson, 2009). The slope is the bus of the DRAM, ${tickText(detail.bus)} bytes a cycle; a mark's area is its share of the cycles, its colour the kind of operator.`));
}

function memoryEl(detail) {
  const [weights, resident, peak, onChip] = detail.memory;
  const facts = [
    ["Weights", `${bytes(weights)}, ${bytes(resident)} of them resident on chip`],
    ["Streamed weights", detail.streamed.length ? detail.streamed.map(text).join(", ") : "none"],
    ["Peak activations", `${bytes(peak)}, at most ${bytes(onChip)} at a time on chip`],
    ["Spills", detail.spills.length ? `${count(detail.spills.length)} tensors` : "none"],
  ];
  const list = el("dl", { class: "facts memory" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  if (!detail.spills.length) return list;
  return el("div", {}, list, tableEl("Tensors that no memory on chip had room for", ["Tensor", "size", "written", "read", "energy"],
    detail.spills.map(([name, size, written, read, pj]) => [text(name), bytes(size), bytes(written), bytes(read), joules(pj)])));
}
