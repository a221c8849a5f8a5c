// Learning curves of the chosen cell: what was measured on held-out sequences while its runs trained.

const ACROSS = { steps: "training steps", flops: "FLOPs of training", cpu_seconds: "CPU seconds of training" };
const UP = {
  nll: "held-out loss, nats", gain: "gain over the control, nats", accuracy: "accuracy (share of right answers)",
  thought_entropy: "entropy of a thought, nats", information: "mutual information of thought and context, nats",
  homogeneity: "how well a thought tells the answer (homogeneity)",
};

panel({
  id: "curves",
  title: "Learning curves",
  about: "Measured on held-out data during training. Thin lines are seeds, thick lines their mean. A triangle above marks the take-off: from there on thinking is better than the control of that colour beyond chance, as long as both train.",
  uses: ["cell", "control", "over", "show", "hide"],
  controls() {
    const arms = Object.keys(cellNow().arms).filter((arm) => curvesOf(arm).length);
    const legend = arms.map((arm) => html("button", {
      class: hidden(arm) ? "off" : "", "data-id": `hide-${arm}`, "aria-pressed": String(!hidden(arm)), onclick: () => toggleArm(arm),
    }, [html("span", { class: "swatch", style: `background:${colour(arm)}` }), label(arm)]));
    return [
      selector("across", "over", Object.entries(ACROSS), overNow(), (over) => choose({ over })),
      selector("up", "show", Object.entries(UP).filter(([name]) => hasMetric(name)), showNow(), (show) => choose({ show })),
      ...legend,
    ];
  },
  draw(body, width) {
    const lines = drawnLines();
    if (!lines.length) {
      body.append(html("p", { class: "quiet" }, "No run of this cell has a learning curve yet."));
      return curveRows();
    }
    drawCurves(body, width, lines);
    drawLost(body);
    if (overNow() === "cpu_seconds") body.append(html("p", { class: "quiet" }, "A run's CPU seconds, evaluations included, are spread evenly over its steps."));
    if (showNow() === "gain") body.append(html("p", { class: "quiet" }, "The control's curve is taken at the thinking run's place across, linearly between its evaluations."));
    return curveRows();
  },
});

function overNow() { return state.over in ACROSS ? state.over : "steps"; }

function hasMetric(name) {
  if (name === "gain") return controlsOf(cellNow()).some((arm) => cellNow().arms[arm].gain);
  return Object.values(cellNow().arms).some((arm) => arm.keys.some((key) => DATA.curves[key]?.[name]));
}

function showNow() { return state.show in UP && hasMetric(state.show) ? state.show : "nll"; }

function hidden(arm) { return state.hide.split(",").includes(arm); }

function toggleArm(arm) {
  const off = state.hide.split(",").filter(Boolean);
  choose({ hide: (off.includes(arm) ? off.filter((other) => other !== arm) : [...off, arm]).join(",") });
}

// The curves of an arm that can be drawn over what is chosen: seed, curve and its places across.
function curvesOf(arm) {
  const { keys, nll } = cellNow().arms[arm];
  return keys.map((key, at) => ({ seed: nll.seeds[at], curve: DATA.curves[key] }))
    .filter(({ curve }) => curve && (overNow() === "steps" || curve[overNow()]))
    .map((one) => ({ ...one, x: one.curve.steps.map((step) => step * (overNow() === "steps" ? 1 : one.curve[overNow()])) }));
}

function between(xs, ys, x) {
  const after = xs.findIndex((one) => one >= x);
  if (after < 0) return null;
  if (xs[after] === x) return ys[after];
  if (!after || ys[after] === null || ys[after - 1] === null) return null;
  const share = (x - xs[after - 1]) / (xs[after] - xs[after - 1]);
  return ys[after - 1] + share * (ys[after] - ys[after - 1]);
}

// Which finished runs have no curve that can be read.
function drawLost(body) {
  const lost = Object.entries(cellNow().arms).map(([arm, { keys, nll }]) => [arm, nll.seeds.filter((_, at) => !DATA.curves[keys[at]])]).filter(([, seeds]) => seeds.length);
  if (lost.length) body.append(html("p", { class: "quiet", id: "lost-curves" }, `Without a curve (metrics.jsonl is missing or damaged): ${lost.map(([arm, seeds]) => `${label(arm)}, seed ${spans(seeds)}`).join("; ")}.`));
}

// arm -> its seeds' points, and the mean over the seeds at the steps that all were measured at.
function drawnLines() {
  const show = showNow();
  const cell = cellNow();
  const arms = Object.keys(cell.arms).filter((arm) => !hidden(arm) && !(show === "gain" && arm === cell.run));
  const own = new Map(show === "gain" ? curvesOf(cell.run).map((one) => [one.seed, one]) : []);
  return arms.map((arm) => {
    const seeds = curvesOf(arm).map(({ seed, curve, x }) => {
      if (show !== "gain") return { seed, x, steps: curve.steps, y: curve[show] };
      const thinking = own.get(seed);
      return thinking && curve.nll && thinking.curve.nll && {
        seed, x: thinking.x, steps: thinking.curve.steps,
        y: thinking.x.map((place, at) => { const other = between(x, curve.nll, place); return other === null || thinking.curve.nll[at] === null ? null : other - thinking.curve.nll[at]; }),
      };
    }).filter((one) => one?.y);
    return { arm, seeds, middle: meanLine(seeds) };
  }).filter(({ seeds }) => seeds.length);
}

function meanLine(seeds) {
  const steps = seeds.length ? seeds[0].steps.filter((step) => seeds.every((one) => one.steps.includes(step))) : [];
  return steps.map((step) => {
    const at = seeds.map((one) => one.steps.indexOf(step));
    const ys = seeds.map((one, place) => one.y[at[place]]);
    return { step, x: mean(seeds.map((one, place) => one.x[at[place]])), y: ys.some((y) => y === null) ? null : mean(ys) };
  });
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function drawCurves(body, width, lines) {
  const marks = onsets();
  const right = width - 170, top = 12 + 11 * marks.length;
  const bottom = top + Math.max(310, 14 * (lines.length + 1));
  const node = drawing(body, width, bottom + 50, UP[showNow()]);
  const xs = lines.flatMap(({ seeds }) => seeds.flatMap((one) => one.x));
  const tops = lines.flatMap(({ seeds }) => seeds.map((one) => Math.max(...one.y.filter(Number.isFinite)))).filter(Number.isFinite);
  const cut = showNow() === "nll" ? 4 * median(tops) : Infinity; // losses far above the usual ones are left out
  const ys = lines.flatMap(({ seeds }) => seeds.flatMap((one) => one.y)).filter((y) => y !== null && y <= cut);
  const floor = showNow() === "nll" && DATA.floor !== null ? [DATA.floor] : [];
  const y = scale("linear", range(ys, showNow() === "gain" ? [0] : floor), [bottom, top]);
  const left = marginOf(y);
  const x = scale("log", [Math.min(...xs), Math.max(...xs)], [left, right]);
  const up = showNow() === "gain" ? "gain of thinking over each control, nats" : UP[showNow()];
  frame(node, x, y, { x: `${ACROSS[overNow()]} (log scale)`, y: up });
  const inside = svg(svg(svg(node, "defs"), "clipPath", { id: "curves-inside" }), "rect", { x: left, y: top - 6, width: right - left, height: bottom - top + 6 });
  inside.parentNode.id = "curves-inside";
  if (floor.length) {
    svg(node, "line", { x1: left, x2: right, y1: y(floor[0]), y2: y(floor[0]), class: "zero", "stroke-dasharray": "5 4" });
  }
  if (showNow() === "gain") svg(node, "line", { x1: left, x2: right, y1: y(0), y2: y(0), class: "zero" });
  const plot = svg(node, "g", { "clip-path": "url(#curves-inside)" });
  for (const { arm, seeds } of lines) {
    for (const one of seeds) {
      const line = svg(plot, "path", { d: pathOf(one.x.map((place, at) => [x(place), one.y[at] === null ? NaN : y(one.y[at])])), fill: "none", stroke: colour(arm), "stroke-width": 0.9, "stroke-opacity": 0.45 });
      hint(line, `${label(arm)}, seed ${one.seed}`);
    }
  }
  for (const { arm, middle } of lines)
    svg(plot, "path", { d: pathOf(middle.map((point) => [x(point.x), point.y === null ? NaN : y(point.y)])), fill: "none", stroke: colour(arm), "stroke-width": arm === cellNow().run ? 3.4 : 2.4, class: "mean", "data-arm": arm });
  const ends = lines.map(({ arm, middle }) => ({ arm, last: middle.filter((point) => point.y !== null).at(-1) })).filter(({ last }) => last)
    .map(({ arm, last }) => ({ words: label(arm), hue: colour(arm), strong: arm === cellNow().run, px: x(last.x), py: Math.min(Math.max(y(last.y), top), bottom) }));
  if (floor.length) ends.push({ words: "best possible", hue: theme("quiet"), px: right, py: y(floor[0]) });
  nameLines(node, ends, { left: right + 22, top, bottom });
  if (marks.length) text(node, right + 22, 12, "▼ take-off over a control", { class: "quiet" });
  marks.forEach((mark, row) => drawOnset(node, mark, x, 12 + row * 11));
}

// Names in a column beside the plot, each with a thin line from the end of its curve, none over another.
function nameLines(node, ends, { left, top, bottom }) {
  const gap = 14;
  ends.sort((a, b) => a.py - b.py || a.px - b.px);
  ends.forEach((end, at) => { end.at = Math.max(end.py, at ? ends[at - 1].at + gap : top); });
  for (let at = ends.length - 1, most = bottom; at >= 0; at -= 1) { ends[at].at = Math.min(ends[at].at, most); most = ends[at].at - gap; }
  for (const { words, hue, strong, px, py, at } of ends) {
    svg(node, "path", { d: `M${px + 2} ${py}H${left - 18}L${left - 3} ${at}`, stroke: hue, "stroke-opacity": 0.55, "stroke-dasharray": "1 3", fill: "none", class: "leader" });
    svg(node, "text", { x: left, y: at + 4, style: `fill:${hue}`, class: `end${strong ? " strong" : ""}` }, shown(words));
  }
}

// The take-offs that can be marked: control, step, and what a step is across.
function onsets() {
  const cell = cellNow();
  const own = curvesOf(cell.run);
  if (!own.length) return [];
  const factor = overNow() === "steps" ? 1 : mean(own.map(({ curve }) => curve[overNow()]));
  return controlsOf(cell).map((arm) => ({ arm, step: cell.arms[arm].gain?.onset, factor })).filter(({ arm, step }) => step && !hidden(arm));
}

function drawOnset(node, { arm, step, factor }, x, y) {
  const mark = svg(node, "path", { d: `M${x(step * factor) - 5} ${y - 8}h10l-5 8z`, fill: colour(arm), class: "onset", "data-arm": arm });
  hint(mark, `take-off over ${label(arm)}: from step ${step} on thinking is better (95 % interval of the paired gain, at every later evaluation)`);
}

function curveRows() {
  const metrics = Object.keys(UP).filter((name) => name !== "gain");
  const rows = [["cell", "arm", "seed", "step", "flops", "cpu_seconds", ...metrics]];
  const cell = cellNow();
  for (const [arm, { keys, nll }] of Object.entries(cell.arms)) {
    keys.forEach((key, at) => {
      const curve = DATA.curves[key];
      curve?.steps.forEach((step, place) => rows.push([cell.name, arm, nll.seeds[at], step, curve.flops && step * curve.flops,
        curve.cpu_seconds && step * curve.cpu_seconds, ...metrics.map((name) => curve[name]?.[place])]));
    });
  }
  return rows;
}
