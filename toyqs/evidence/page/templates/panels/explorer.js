// The explorer: a gain against any setting that was swept; a click chooses the cell of all other panels.

const SERIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933"];
const OWN_LOSS = "nll"; // in the place of a control: the run's own loss

panel({
  id: "explorer",
  title: "Where it helps: gain by setting",
  about: "Each point or square is a cell: one combination of settings with all its seeds. Click one, or use the arrow keys, to choose what the other panels show.",
  uses: ["cell", "control", "axis", "down"],
  controls() {
    if (DATA.cells.length < 2) return [];
    const axes = axisNames();
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
  const values = axisOf(name).values;
  alike.sort((a, b) => values.indexOf(a.values[name]) - values.indexOf(b.values[name]));
  const next = alike[alike.indexOf(now) + step];
  if (next) choose({ cell: next.id });
}

// Settings that change together with an earlier one, one value for one, are not axes of their own.
function together(one, other) {
  const pairs = new Set(DATA.cells.map((cell) => JSON.stringify([cell.values[one], cell.values[other]])));
  return pairs.size === axisOf(one).values.length && pairs.size === axisOf(other).values.length;
}

function freeAxes() {
  const found = [];
  for (const { key } of DATA.axes) if (!found.some((other) => together(other, key))) found.push(key);
  return found;
}

const axisNames = freeAxes;

function axisLabel(name) {
  const along = DATA.axes.map((axis) => axis.key).filter((other) => other !== name && together(name, other));
  const words = [name, ...along].map((key) => axisOf(key).name);
  return along.length ? `${words[0]} (with it ${words.slice(1, 3).join(", ")}${along.length > 2 ? " …" : ""})` : words[0];
}

function acrossNow() {
  const axes = axisNames();
  if (axes.includes(state.axis)) return state.axis;
  return axes.find((name) => DATA.cells.some((cell) => name in cell.numbers)) ?? axes[0];
}

function downNow() {
  const others = axisNames().filter((name) => name !== acrossNow());
  if (others.includes(state.down)) return state.down;
  return state.down === "" && others.includes("weight_groups") && acrossNow() !== "weight_groups" ? "weight_groups" : "";
}

// What is drawn of a cell: its gain over the control; its own loss where no gain is known anywhere.
function measured(cell) {
  return knownControls().length ? cell.arms[controlNow()]?.gain : cell.arms[cell.run].nll;
}

function measuredName() {
  return knownControls().length ? `gain over ${label(controlNow())}, nats` : "held-out loss, nats";
}

function xScale(name, start, end) {
  const { values } = axisOf(name);
  const numbers = values.map((value) => DATA.cells.find((cell) => cell.values[name] === value)?.numbers[name]);
  const all = numbers.every((x) => Number.isFinite(x));
  const inset = Math.min(60, (end - start) / (2 * values.length));
  if (all && numbers.every((x) => x > 0) && Math.max(...numbers) / Math.min(...numbers) >= 4) {
    const x = scale("log", [Math.min(...numbers), Math.max(...numbers)], [start + inset, end - inset]);
    return { at: (cell) => x(cell.numbers[name]), places: numbers.map(x), joined: true, values, note: " (log scale)" };
  }
  const step = (end - start - 2 * inset) / Math.max(1, values.length - 1);
  const places = values.map((_, place) => start + inset + place * step);
  return { at: (cell) => places[values.indexOf(cell.values[name])], places, joined: all, values, note: "" };
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
  const x = xScale(across, 64, width - 16);
  frame(node, { start: 64, end: width - 16 }, y, { x: axisLabel(across) + x.note, y: measuredName() });
  if (knownControls().length) svg(node, "line", { x1: 64, x2: width - 16, y1: y(0), y2: y(0), class: "zero" });
  x.values.forEach((value, place) => {
    text(node, x.places[place], bottom + 17, fitted(value, Math.max(40, (width - 80) / x.values.length - 4)), { "text-anchor": "middle" });
  });
  const hue = (place) => (series.length === 1 ? colour(controlNow()) : place < SERIES.length ? ink(SERIES[place]) : theme("quiet"));
  const order = series.map((_, place) => place).sort((a, b) => (a === own) - (b === own));
  for (const place of order) drawSeries(node, series[place][1], { x, y, hue: hue(place), shift: series.length > 1 ? (place - (series.length - 1) / 2) * Math.min(9, 60 / series.length) : 0 });
  legend.forEach(([name], place) => {
    const [lx, ly] = [64 + (place % perLine) * 260, bottom + 58 + 18 * Math.floor(place / perLine)];
    svg(node, "circle", { cx: lx, cy: ly - 4, r: 5, fill: hue(place) });
    text(node, lx + 10, ly, fitted(name, 240), { class: place === own ? "strong" : null });
  });
}

function drawSeries(node, cells, { x, y, hue, shift }) {
  const known = cells.filter((cell) => Number.isFinite(measured(cell)?.mean)).sort((a, b) => x.at(a) - x.at(b));
  if (x.joined) svg(node, "path", { d: pathOf(known.map((cell) => [x.at(cell) + shift, y(measured(cell).mean)])), fill: "none", stroke: hue, "stroke-width": 1.5, opacity: 0.6 });
  for (const cell of cells) {
    const found = measured(cell);
    const at = x.at(cell) + shift;
    const group = svg(node, "g", {});
    pressable(group, pointWords(cell), `cell-${cell.id}`, () => choose({ cell: cell.id }));
    hint(group, pointWords(cell));
    if (cell === cellNow()) svg(group, "rect", { x: at - 14, y: 8, width: 28, height: y.start - 8, fill: "var(--soft)", opacity: 0.7, rx: 5 });
    if (!Number.isFinite(found?.mean)) {
      text(group, at, y.start - 6, found?.values.length ? "diverged" : "–", { "text-anchor": "middle", class: "quiet" });
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
  return `${cellLabel(cell)}: ${found ? `${measuredName()}: ${found.text}` : "not finished"}${started}; verdict: ${inLabels(cell.verdict?.text ?? "none")}`;
}

// --- heat map

function drawMap(body, width) {
  const [across, down] = [acrossNow(), downNow()];
  const columns = axisOf(across).values;
  const rows = axisOf(down).values;
  const font = "12px DejaVu Sans Mono, monospace";
  const left = Math.min(240, Math.max(widthOf(`${axisLabel(down)} ↓`) + 26, ...rows.map((row) => widthOf(row, font) + 16)));
  const size = Math.min(130, (width - left - 10) / columns.length);
  const high = 42, top = 44;
  const node = drawing(body, width, top + high * rows.length + (width < 900 ? 84 : 62), `${measuredName()}, by ${axisLabel(down)} and ${axisLabel(across)}`);
  const stripes = svg(svg(node, "defs"), "pattern", { id: "stripes", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  svg(stripes, "rect", { width: 1.6, height: 7, fill: theme("ink"), "fill-opacity": 0.35 });
  text(node, left, 14, `${axisLabel(across)} →`, { class: "quiet" });
  text(node, 0, 14, fitted(`${axisLabel(down)} ↓`, left - 8), { class: "quiet" });
  columns.forEach((column, at) => text(node, left + (at + 0.5) * size, top - 8, fitted(column, size - 4), { "text-anchor": "middle" }));
  const paint = painter();
  rows.forEach((row, line) => {
    text(node, left - 8, top + (line + 0.5) * high + 4, fitted(row, left - 12, font), { "text-anchor": "end", class: "mono" });
    columns.forEach((column, at) => {
      const box = { x: left + at * size + 1, y: top + line * high + 1, width: size - 2, height: high - 2 };
      const cell = cellAt({ [across]: column, [down]: row });
      if (cell) drawSquare(node, cell, box, paint);
      else text(node, box.x + box.width / 2, box.y + 24, "not run", { "text-anchor": "middle", class: "quiet" });
    });
  });
  drawMapKey(node, width < 900 ? 0 : left, top + high * rows.length + 26, paint, width);
  const fixed = freeAxes().filter((name) => DATA.keys.includes(name) && name !== across && name !== down).map((name) => inWords(name, cellNow().values[name])).filter(Boolean);
  if (fixed.length) body.append(html("p", { class: "quiet" }, shown(`More settings differ; the map shows cells with those of the chosen one where there are any: ${fixed.join(", ")}.`)));
}

// The cell of some values; of several, that which is most like the chosen one.
function cellAt(values) {
  const fits = DATA.cells.filter((cell) => Object.entries(values).every(([name, value]) => cell.values[name] === value));
  const alike = (cell) => freeAxes().filter((name) => cell.values[name] === cellNow().values[name]).length;
  return fits.sort((a, b) => alike(b) - alike(a))[0];
}

function heat(value, most) {
  return mixed(theme("zero"), theme(value > 0 ? "more" : "less"), Math.min(1, Math.abs(value) / most) ** 0.7);
}

function drawSquare(node, cell, box, paint) {
  const found = measured(cell);
  const group = pressable(svg(node, "g", {}), pointWords(cell), `cell-${cell.id}`, () => choose({ cell: cell.id }));
  hint(group, pointWords(cell));
  const known = Number.isFinite(found?.mean);
  const back = known ? paint.colour(found.mean) : theme("card");
  svg(group, "rect", { ...box, fill: back, stroke: theme("line"), rx: 3 });
  if (known && paint.gains && !(Math.abs(found.mean) > found.half_width && found.half_width !== null)) svg(group, "rect", { ...box, fill: "url(#stripes)", rx: 3, class: "hatched" });
  if (cell === cellNow()) svg(group, "rect", { ...box, fill: "none", stroke: theme("ink"), "stroke-width": 3, rx: 3 });
  const middle = box.x + box.width / 2;
  const words = known ? (paint.gains ? signed : number)(found.mean, box.width < 50 ? 1 : 2) : found?.values.length ? "diverged" : "–";
  const fore = known ? onto(back) : theme("quiet");
  svg(group, "text", { x: middle, y: box.y + 17, "text-anchor": "middle", class: "strong", style: `fill:${fore}` }, words);
  const seeds = cell.judged_seeds;
  for (let seed = 0; seed < Math.min(seeds, 10); seed += 1) {
    const filled = seed < cell.started;
    svg(group, "circle", { cx: middle + (seed - (seeds - 1) / 2) * Math.min(9, box.width / (seeds + 1)), cy: box.y + 29, r: 2.8, fill: filled ? fore : "none", stroke: fore, "stroke-width": 1 });
  }
}

// The colours of the map: gains from blue over grey to orange; losses from light to dark.
function painter() {
  const means = DATA.cells.map((cell) => measured(cell)?.mean).filter(Number.isFinite);
  const gains = knownControls().length > 0;
  const most = Math.max(1e-9, ...means.map(Math.abs));
  const [low, high] = gains ? [-most, most] : [Math.min(...means), Math.max(...means)];
  const between_ = (value) => mixed(theme("zero"), theme("base"), (value - low) / (high - low || 1));
  return { gains, low, high, colour: (value) => (gains ? heat(value, most) : between_(value)) };
}

function drawMapKey(node, left, y, { gains, low, high, colour: paint }, width) {
  for (let step = 0; step <= 16; step += 1)
    svg(node, "rect", { x: left + step * 9, y: y - 10, width: 9, height: 12, fill: paint(low + ((high - low) * step) / 16) });
  const tickAt = gains ? signedTick : tickText;
  text(node, left, y + 16, tickAt(Number(low.toPrecision(2))), { "font-size": 11 });
  text(node, left + 153, y + 16, tickAt(Number(high.toPrecision(2))), { "text-anchor": "end", "font-size": 11 });
  const room = width - left - 170;
  const used = caption(node, left + 165, y, gains ? "blue: not thinking is better, orange: thinking is" : "the darker, the higher the loss", room, {});
  caption(node, left + 165, y + used, `${gains ? "hatched: the 95 % interval holds 0;  " : ""}● seeds that started to think, ○ that did not`, room);
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
