// The explorer's heat map: a square for each cell by two settings; of the others it shows the chosen cell's values.

function drawMap(body, width) {
  const [across, down] = [acrossNow(), downNow()];
  const [columns, rows] = [valuesOf(across), valuesOf(down)];
  const others = otherAxes([across, down]);
  if (others.length) body.append(html("div", { class: "controls", id: "fixed" }, [html("span", { class: "quiet" }, "shown:"), ...others.map(otherChoice)]));
  const cells = rows.map((row) => columns.map((column) => cellAt({ [across]: column, [down]: row }, others)));
  const font = "12px DejaVu Sans Mono, monospace";
  const left = Math.min(240, Math.max(widthOf(`${axisLabel(down)} ↓`) + 26, ...rows.map((row) => widthOf(row, font) + 16)));
  const size = Math.min(130, (width - left - 10) / columns.length);
  const high = 42, top = 44;
  const node = drawing(body, width, top + high * rows.length + (width < 900 ? 84 : 62), `${measuredName()}, by ${axisLabel(down)} and ${axisLabel(across)}`);
  const stripes = svg(svg(node, "defs"), "pattern", { id: "stripes", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  svg(stripes, "rect", { width: 1.6, height: 7, fill: theme("ink"), "fill-opacity": 0.35 });
  const fixed = others.map((name) => `${axisOf(name).name}: ${cellNow().values[name]}`).join(", ");
  text(node, left, 14, fitted(`${axisLabel(across)} →${fixed && `   (${fixed})`}`, width - left), { class: "quiet" });
  text(node, 0, 14, fitted(`${axisLabel(down)} ↓`, left - 8), { class: "quiet" });
  columns.forEach((column, at) => text(node, left + (at + 0.5) * size, top - 8, fitted(column, size - 4), { "text-anchor": "middle" }));
  const paint = painter(cells.flat().filter(Boolean));
  rows.forEach((row, line) => {
    text(node, left - 8, top + (line + 0.5) * high + 4, fitted(row, left - 12, font), { "text-anchor": "end", class: "mono" });
    columns.forEach((_, at) => {
      const box = { x: left + at * size + 1, y: top + line * high + 1, width: size - 2, height: high - 2 };
      const cell = cells[line][at];
      if (cell) drawSquare(node, cell, box, paint);
      else text(node, box.x + box.width / 2, box.y + 24, "not run", { "text-anchor": "middle", class: "quiet" });
    });
  });
  drawMapKey(node, width < 900 ? 0 : left, top + high * rows.length + 26, paint, width);
}

// The choice of a setting that is neither across nor down; it chooses a cell, for the map shows the cell's values.
function otherChoice(name) {
  return selector(axisOf(name).name, `fixed-${name}`, valuesOf(name).map((value) => [value, value]), cellNow().values[name],
    (value) => choose({ cell: likest({ [name]: value }, [acrossNow(), downNow()]).id }));
}

// The cell of some values that has those of the chosen cell in other settings, or means nothing by them.
function cellAt(values, others) {
  const cell = likest(values, others);
  return cell && others.every((name) => [cellNow().values[name], NO_EFFECT].includes(cell.values[name])) ? cell : null;
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
  const words = known ? (paint.gains ? signed : number)(found.mean, box.width < 50 ? 1 : 2) : unmeasured(cell);
  const fore = known ? onto(back) : theme("quiet");
  svg(group, "text", { x: middle, y: box.y + 17, "text-anchor": "middle", class: "strong", style: `fill:${fore}` }, fitted(words, box.width - 2));
  const seeds = cell.judged_seeds;
  for (let seed = 0; seed < Math.min(seeds, 10); seed += 1) {
    const filled = seed < cell.started;
    svg(group, "circle", { cx: middle + (seed - (seeds - 1) / 2) * Math.min(9, box.width / (seeds + 1)), cy: box.y + 29, r: 2.8, fill: filled ? fore : "none", stroke: fore, "stroke-width": 1, class: "judged-seed" });
  }
}

// The colours of the map, over the cells that it shows: gains from blue over grey to orange; losses from light to dark.
function painter(cells) {
  const means = cells.map((cell) => measured(cell)?.mean).filter(Number.isFinite);
  const gains = knownControls().length > 0;
  const most = Math.max(1e-9, ...means.map(Math.abs));
  const [low, high] = gains ? [-most, most] : means.length ? [Math.min(...means), Math.max(...means)] : [0, 1];
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
