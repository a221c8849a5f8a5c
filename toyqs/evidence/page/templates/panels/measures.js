// Interventions and budget curves: results of python -m toyqs.answers that lay in RUNS/reports.

panel({
  id: "tests",
  title: "Put to the test: changed and longer thoughts",
  about: "What predictions lose when a thought is changed, and what shorter and longer thoughts than those of training are worth.",
  uses: ["cell"],
  draw(body, width) {
    const keys = new Set(cellNow().arms[cellNow().run].keys);
    const found = DATA.measures.found.filter(({ runs }) => runs.some((key) => keys.has(key)));
    const rows = [["file", "measure", "what", "mean, nats", "half width", "seeds"]];
    for (const one of found) {
      body.append(html("h3", {}, one.measure === "lengths" ? "Fewer and more symbols of thought" : "Thoughts changed"));
      body.append(html("p", { class: "quiet" }, shown(`${one.file}: seeds ${one.result.seeds.join(", ")}; intervals over ${one.result.intervals_over}`)));
      (one.measure === "lengths" ? drawLengths : drawInterventions)(body, one, width, rows);
    }
    if (!found.length) adviseMeasures(body, [...keys]);
    if (DATA.measures.unnamed.length)
      body.append(html("p", { class: "quiet" }, shown(`Not shown, for they do not say which runs they are of (give their commands again): ${DATA.measures.unnamed.join(", ")}.`)));
    return rows;
  },
});

function adviseMeasures(body, keys) {
  const cell = cellNow();
  if (!cell.thinks || !keys.length) {
    body.append(html("p", {}, cell.thinks ? "No thinking run of this cell has finished." : "This run has no thoughts."));
    return;
  }
  const runs = keys.map((key) => `${DATA.folder}/${key}`).join(" ");
  body.append(html("p", {}, "Neither was run on this cell. These commands do, and the page made again shows them:"));
  for (const name of ["interventions", "lengths"])
    body.append(html("pre", {}, shown(`python -m toyqs.answers ${name} ${runs} -o ${DATA.folder}/reports/${name}${DATA.cells.length > 1 ? `-${cell.id}` : ""}.json`)));
}

const WHOLE = { shuffled: "the thoughts of another sequence", constant: "one and the same thought everywhere", no_thought: "no thought" };
const CHANGES = { swapped: "swapped with another sequence's", drawn_on: "swapped, later symbols drawn anew", constant: "made constant", noise: "made noise", removed: "removed" };

function drawInterventions(body, { result, file }, width, rows) {
  const bars = [];
  for (const [name, words] of Object.entries(WHOLE)) if (result.whole[name]) bars.push([words, result.whole[name]]);
  result.cut.slice(0, -1).forEach((one, kept) => { if (one) bars.push([`own thoughts cut after ${several(kept, "symbol")}`, one]); });
  for (const symbol of result.symbols)
    for (const [name, words] of Object.entries(CHANGES)) if (symbol[name]) bars.push([`symbol ${symbol.symbol} ${words}`, symbol[name]]);
  for (const [words, one] of bars) rows.push([file, "interventions", words, one.mean, one.half_width, result.seeds.join(" ")]);
  const left = Math.min(300, width * 0.45), right = width - 140;
  const node = drawing(body, width, 22 * bars.length + 44, "what predictions lose");
  const x = scale("linear", range(bars.filter(([, one]) => one.mean !== null).flatMap(([, one]) => [one.mean - (one.half_width ?? 0), one.mean + (one.half_width ?? 0)]), [0]), [left, right]);
  for (const tick of x.ticks(6)) {
    svg(node, "line", { x1: x(tick), x2: x(tick), y1: 0, y2: 22 * bars.length, class: tick ? "grid" : "zero" });
    text(node, x(tick), 22 * bars.length + 15, tickText(tick), { "text-anchor": "middle" });
  }
  text(node, (left + right) / 2, 22 * bars.length + 33, `costs so many nats more than the own thoughts (${number(result.own.mean)})`, { "text-anchor": "middle", class: "quiet" });
  bars.forEach(([words, one], place) => {
    const y = 22 * place + 11;
    text(node, left - 8, y + 4, fitted(words, left - 12), { "text-anchor": "end" });
    if (one.mean === null) { text(node, right + 8, y + 4, "not known", { class: "quiet" }); return; }
    svg(node, "rect", { x: Math.min(x(0), x(one.mean)), y: y - 6, width: Math.abs(x(one.mean) - x(0)), height: 12, fill: theme(one.mean > 0 ? "accent" : "base"), class: "cost" });
    if (one.half_width !== null) svg(node, "line", { x1: x(one.mean - one.half_width), x2: x(one.mean + one.half_width), y1: y, y2: y, stroke: theme("ink"), "stroke-width": 1.5 });
    text(node, right + 8, y + 4, `${signed(one.mean)}${one.half_width === null ? "" : ` ± ${number(one.half_width)}`}`);
  });
}

function drawLengths(body, { result, file }, width, rows) {
  const found = result.lengths;
  for (const one of found) rows.push([file, "lengths", `${one.length} symbols`, one.nll.mean, one.nll.half_width, result.seeds.join(" ")]);
  const bottom = 230;
  const node = drawing(body, width, bottom + 46, "loss by the number of symbols");
  const seeds = [...new Set(found.flatMap((one) => Object.keys(one.nll_by_seed)))];
  const y = scale("linear", range(found.flatMap((one) => [...Object.values(one.nll_by_seed), one.nll.mean]), [0]), [bottom, 10]);
  const x = scale("linear", [found[0].length - 0.3, found.at(-1).length + 0.3], [marginOf(y), width - 16]);
  frame(node, Object.assign(x, { ticks: () => found.map((one) => one.length) }), y, { x: "symbols per thought", y: "held-out loss, nats" });
  svg(node, "line", { x1: x(result.trained_with), x2: x(result.trained_with), y1: 10, y2: bottom, class: "zero", "stroke-dasharray": "4 4" });
  text(node, x(result.trained_with) + 5, 20, "as trained", { class: "quiet" });
  for (const seed of seeds)
    svg(node, "path", { d: pathOf(found.map((one) => [x(one.length), y(one.nll_by_seed[seed] ?? NaN)])), fill: "none", stroke: theme("accent"), "stroke-opacity": 0.4 });
  svg(node, "path", { d: pathOf(found.map((one) => [x(one.length), y(one.nll.mean ?? NaN)])), fill: "none", stroke: theme("accent"), "stroke-width": 2.6 });
  for (const one of found.filter(({ nll }) => nll.mean !== null)) {
    const half = one.nll.half_width ?? 0;
    svg(node, "line", { x1: x(one.length), x2: x(one.length), y1: y(one.nll.mean - half), y2: y(one.nll.mean + half), stroke: theme("accent"), "stroke-width": 1.5 });
    hint(svg(node, "circle", { cx: x(one.length), cy: y(one.nll.mean), r: 5, fill: theme("accent") }), `${several(one.length, "symbol")}: ${number(one.nll.mean)} ± ${number(one.nll.half_width)} nats, ${number(100 * one.accuracy.mean, 1)} % right`);
  }
}
