// Learning curves of the chosen cell: what was measured on held-out sequences while its runs trained.

const ACROSS = { steps: "training steps", flops: "FLOPs of training", cpu_seconds: "CPU seconds of training" };
const UP = {
  nll: "held-out NLL, nats", gain: "gain over the control, nats", accuracy: "accuracy",
  thought_entropy: "entropy of a thought, nats", information: "information of a thought about the context, nats",
  homogeneity: "how well a thought tells the answer (homogeneity)",
};

panel({
  id: "curves",
  title: "Learning curves",
  about: "Thin lines are seeds, thick lines their mean. A triangle marks the step from which on thinking is better than that control beyond chance, as long as both train.",
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
  const right = width - 150, bottom = 340;
  const node = drawing(body, width, bottom + 50, UP[showNow()]);
  const xs = lines.flatMap(({ seeds }) => seeds.flatMap((one) => one.x));
  const tops = lines.flatMap(({ seeds }) => seeds.map((one) => Math.max(...one.y.filter(Number.isFinite)))).filter(Number.isFinite);
  const cut = showNow() === "nll" ? 4 * median(tops) : Infinity; // losses far above the usual ones are left out
  const ys = lines.flatMap(({ seeds }) => seeds.flatMap((one) => one.y)).filter((y) => y !== null && y <= cut);
  const floor = showNow() === "nll" && DATA.floor !== null ? [DATA.floor] : [];
  const x = scale("log", [Math.min(...xs), Math.max(...xs)], [64, right]);
  const y = scale("linear", range(ys, showNow() === "gain" ? [0] : floor), [bottom, 12]);
  const up = showNow() === "gain" ? "gain of thinking over each control, nats" : UP[showNow()];
  frame(node, x, y, { x: `${ACROSS[overNow()]} (log scale)`, y: up });
  const inside = svg(svg(svg(node, "defs"), "clipPath", { id: "curves-inside" }), "rect", { x: 64, y: 6, width: right - 64, height: bottom - 6 });
  inside.parentNode.id = "curves-inside";
  if (floor.length) {
    svg(node, "line", { x1: 64, x2: right, y1: y(floor[0]), y2: y(floor[0]), class: "zero", "stroke-dasharray": "5 4" });
    text(node, 70, y(floor[0]) - 5, "best possible (Bayes)", { class: "quiet" });
  }
  if (showNow() === "gain") svg(node, "line", { x1: 64, x2: right, y1: y(0), y2: y(0), class: "zero" });
  const plot = svg(node, "g", { "clip-path": "url(#curves-inside)" });
  for (const { arm, seeds } of lines) {
    for (const one of seeds) {
      const line = svg(plot, "path", { d: pathOf(one.x.map((place, at) => [x(place), one.y[at] === null ? NaN : y(one.y[at])])), fill: "none", stroke: colour(arm), "stroke-width": 0.9, "stroke-opacity": 0.45 });
      hint(line, `${label(arm)}, seed ${one.seed}`);
    }
  }
  for (const { arm, middle } of lines)
    svg(plot, "path", { d: pathOf(middle.map((point) => [x(point.x), point.y === null ? NaN : y(point.y)])), fill: "none", stroke: colour(arm), "stroke-width": arm === cellNow().run ? 3.4 : 2.4, class: "mean", "data-arm": arm });
  nameLines(node, lines, x, y);
  markOnsets(node, x, y);
}

// The arms' names beside the ends of their lines, where they do not cover each other.
function nameLines(node, drawn, x, y) {
  const ends = drawn.map(({ arm, middle }) => ({ arm, last: middle.filter((point) => point.y !== null).at(-1) })).filter(({ last }) => last)
    .map(({ arm, last }) => ({ arm, px: x(last.x), py: Math.min(Math.max(y(last.y), y.end), y.start) }));
  const columns = []; // lines that end at about the same place across
  for (const end of ends.sort((a, b) => a.px - b.px)) {
    if (columns.length && end.px - columns.at(-1)[0].px < 60) columns.at(-1).push(end); else columns.push([end]);
  }
  const gap = 14;
  for (const column of columns) {
    const left = Math.max(...column.map((end) => end.px)) + 14;
    column.sort((a, b) => a.py - b.py);
    column.forEach((end, at) => { end.at = Math.max(end.py, at ? column[at - 1].at + gap : 0); });
    for (let at = column.length - 1, most = y.start + 2; at >= 0; at -= 1) { column[at].at = Math.min(column[at].at, most); most = column[at].at - gap; }
    for (const { arm, px, py, at } of column) {
      svg(node, "path", { d: `M${px + 2} ${py}L${left - 2} ${at}`, stroke: colour(arm), "stroke-opacity": 0.5, fill: "none" });
      svg(node, "text", { x: left, y: at + 4, style: `fill:${colour(arm)}`, class: `halo${arm === cellNow().run ? " strong" : ""}` }, shown(label(arm)));
    }
  }
}

function markOnsets(node, x, y) {
  const cell = cellNow();
  const own = curvesOf(cell.run);
  let row = 0;
  for (const arm of controlsOf(cell)) {
    const step = cell.arms[arm].gain?.onset;
    if (!step || hidden(arm) || !own.length) continue;
    const factor = overNow() === "steps" ? 1 : mean(own.map(({ curve }) => curve[overNow()]));
    const at = x(step * factor);
    const mark = svg(node, "path", { d: `M${at - 5} ${y.end + 2 + row * 11}h10l-5 8z`, fill: colour(arm), class: "onset", "data-arm": arm });
    hint(mark, `from step ${step} on thinking is better than ${label(arm)} (95 % interval of the paired gain, at every later evaluation)`);
    row += 1;
  }
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
