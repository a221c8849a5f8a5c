// The explorer: a gain against any setting that was swept; a click chooses the cell of all other panels.

const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933"];

panel({
  id: "explorer",
  title: "Where it helps: gain by setting",
  about: "Each point or square is a cell: one combination of settings with all its seeds. Click one, or use the arrow keys, to choose what the other panels show.",
  uses: ["cell", "control", "axis", "down"],
  controls() {
    if (DATA.cells.length < 2) return [];
    const axes = freeAxes();
    const known = knownControls();
    const across = selector("across", "axis", axes.map((name) => [name, axisLabel(name)]), acrossNow(), (axis) => choose({ axis, down: state.down === axis ? "none" : state.down }));
    const others = axes.filter((name) => name !== acrossNow());
    const down = selector("as", "down", [["none", "points"], ...others.map((name) => [name, `a map, downwards: ${axisLabel(name)}`])], downNow() || "none", (name) => choose({ down: name }));
    const over = selector("gain over", "control", known.map((arm) => [arm, label(arm)]), controlNow(), (control) => choose({ control }));
    return [across, others.length ? down : null, known.length ? over : null].filter(Boolean);
  },
  draw(body, width) {
    if (DATA.cells.length < 2) {
      adviseSweep(body, DATA.sweep);
      return answerRows();
    }
    if (downNow()) drawMap(body, width); else drawPoints(body, width);
    return explorerRows();
  },
  keys(key) {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 };
    if (!(key in steps) || DATA.cells.length < 2) return false;
    const down = downNow();
    const along = down && (key === "ArrowDown" || key === "ArrowUp") ? down : acrossNow();
    moveAlong(along, steps[key]);
    return true;
  },
});

function adviseSweep(body, { name, command, report }) {
  const one = "Here is one cell: no setting was swept.";
  if (!command) { body.append(html("p", {}, `${one} Give a setting several values, python run.py -m KEY=VALUE,VALUE …, and this panel draws the gain against it.`)); return; }
  body.append(html("p", {}, `${one} This sweeps the ${name}, with all else as it is here, and makes a page that draws the gain against it:`));
  body.append(html("pre", { id: "sweep" }, shown(command)), html("pre", {}, shown(report)));
}

// Choose the next cell along one setting that is equal in all others.
function moveAlong(name, step) {
  const now = cellNow();
  const alike = DATA.cells.filter((cell) => freeAxes().every((other) => other === name || cell.values[other] === now.values[other]));
  const values = valuesOf(name);
  alike.sort((a, b) => values.indexOf(a.values[name]) - values.indexOf(b.values[name]));
  const next = alike[alike.indexOf(now) + step];
  if (next) choose({ cell: next.id });
}

function acrossNow() {
  const axes = freeAxes();
  if (axes.includes(state.axis)) return state.axis;
  return axes.find((name) => DATA.cells.some((cell) => name in cell.numbers)) ?? axes[0];
}

function downNow() {
  const others = freeAxes().filter((name) => name !== acrossNow());
  if (others.includes(state.down)) return state.down;
  return state.down === "" && others.includes("weight_groups") && acrossNow() !== "weight_groups" ? "weight_groups" : "";
}

// What is drawn of a cell: its gain over the control; its own loss where no gain is known anywhere.
function measured(cell) {
  return knownControls().length ? cell.arms[controlNow()]?.gain : cell.arms[cell.run].nll;
}

// What stands where nothing is measured.
function unmeasured(cell) {
  if (!cell.thinks && knownControls().length) return "no thoughts";
  return measured(cell)?.values.length ? "diverged" : "–";
}

function measuredName() {
  return knownControls().length ? `gain over ${label(controlNow())}, nats` : "held-out loss, nats";
}

// Cells in lines: those equal in all settings but the one across.
function seriesOf(across) {
  const others = freeAxes().filter((name) => name !== across);
  const found = new Map();
  for (const cell of DATA.cells) {
    const name = others.map((other) => inWords(other, cell.values[other])).filter(Boolean).join(", ");
    found.set(name, [...(found.get(name) ?? []), cell]);
  }
  return [...found];
}

function drawPoints(body, width) {
  const across = acrossNow();
  const series = seriesOf(across);
  const own = series.findIndex(([, cells]) => cells.includes(cellNow()));
  const legend = series.length > 1 ? series.slice(0, 24) : [];
  const perLine = Math.max(1, Math.floor(width / 260));
  const bottom = 330, height = bottom + 52 + 18 * Math.ceil(legend.length / perLine);
  const node = drawing(body, width, height, measuredName());
  const ends = DATA.cells.map(measured).filter(Boolean).flatMap(({ values, mean: middle, half_width: half }) =>
    [...values, ...(middle === null || half === null ? [] : [middle - half, middle + half])]).filter(Number.isFinite);
  if (!ends.length) {
    text(node, width / 2, 150, "nothing has finished that could be compared", { "text-anchor": "middle", class: "quiet" });
  }
  const y = scale("linear", range(ends, knownControls().length ? [0] : []), [bottom, 12]);
  const left = marginOf(y);
  const x = { ...placesAcross(across, left, width - 16), said: new Map() };
  frame(node, { start: left, end: width - 16 }, y, { x: axisLabel(across) + x.note, y: measuredName() });
  if (knownControls().length) svg(node, "line", { x1: left, x2: width - 16, y1: y(0), y2: y(0), class: "zero" });
  x.values.forEach((value, place) => {
    text(node, x.places[place], bottom + 17, fitted(value, Math.max(24, x.room - 4)), { "text-anchor": "middle" });
  });
  const hue = (place) => (series.length === 1 ? colour(controlNow()) : place < SERIES.length ? ink(SERIES[place]) : theme("quiet"));
  const order = series.map((_, place) => place).sort((a, b) => (a === own) - (b === own));
  for (const place of order) drawSeries(node, series[place][1], { x, y, hue: hue(place), shift: series.length > 1 ? (place - (series.length - 1) / 2) * Math.min(9, 60 / series.length) : 0 });
  legend.forEach(([name], place) => {
    const [lx, ly] = [left + (place % perLine) * 260, bottom + 58 + 18 * Math.floor(place / perLine)];
    svg(node, "circle", { cx: lx, cy: ly - 4, r: 5, fill: hue(place) });
    text(node, lx + 10, ly, fitted(name, 240), { class: place === own ? "strong" : null });
  });
}

function drawSeries(node, cells, { x, y, hue, shift }) {
  const known = cells.filter((cell) => Number.isFinite(measured(cell)?.mean)).sort((a, b) => x.at(a) - x.at(b));
  const numbers = known.filter((cell) => Number.isFinite(cell.numbers[acrossNow()]));
  if (x.joined) svg(node, "path", { d: pathOf(numbers.map((cell) => [x.at(cell) + shift, y(measured(cell).mean)])), fill: "none", stroke: hue, "stroke-width": 1.5, opacity: 0.6 });
  for (const cell of cells) {
    const found = measured(cell);
    const at = x.at(cell) + shift;
    const group = svg(node, "g", {});
    pressable(group, pointWords(cell), `cell-${cell.id}`, () => choose({ cell: cell.id }));
    hint(group, pointWords(cell));
    if (cell === cellNow()) svg(group, "rect", { x: at - 14, y: 8, width: 28, height: y.start - 8, fill: "var(--soft)", opacity: 0.7, rx: 5 });
    if (!Number.isFinite(found?.mean)) {
      const place = x.at(cell);
      x.said.set(place, (x.said.get(place) ?? 0) + 1); // one above the other
      text(group, place, y.start + 8 - 14 * x.said.get(place), unmeasured(cell), { "text-anchor": "middle", class: "quiet" });
      svg(group, "rect", { x: at - 12, y: y.end, width: 24, height: y.start - y.end, fill: "transparent" });
      continue;
    }
    const half = found.half_width ?? 0;
    svg(group, "line", { x1: at, x2: at, y1: y(found.mean - half), y2: y(found.mean + half), stroke: hue, "stroke-width": 2 });
    found.values.forEach((value) => { if (value !== null) svg(group, "circle", { cx: at - 8, cy: y(value), r: 2.6, fill: hue, "fill-opacity": 0.6 }); });
    svg(group, "circle", { cx: at, cy: y(found.mean), r: cell === cellNow() ? 7.5 : 5.5, fill: hue, stroke: theme("card"), "stroke-width": 1.5 });
  }
}

function pointWords(cell) {
  const found = measured(cell);
  const started = cell.judged_seeds ? `; ${cell.started} of ${cell.judged_seeds} seeds started to think` : "";
  const said = found ? `${measuredName()}: ${found.text}` : cell.thinks ? "not finished" : "no thoughts";
  return `${cellLabel(cell)}: ${said}${started}; verdict: ${inLabels(cell.verdict?.text ?? "none")}`;
}

function explorerRows() {
  const names = DATA.axes.map((axis) => axis.key);
  const rows = [[...names, "control", "gain", "half_width", "seeds", "started", "verdict"]];
  for (const cell of DATA.cells) {
    for (const arm of controlsOf(cell)) {
      const gain = cell.arms[arm].gain;
      if (gain) rows.push([...names.map((name) => cell.values[name]), arm, gain.mean, gain.half_width, gain.seeds.length, cell.started, cell.verdict?.text]);
    }
  }
  return rows;
}
