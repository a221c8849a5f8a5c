// The answer: the verdict in words, and the gain over every control.

const SYMBOL = { better: "▲", worse: "▼", undecided: "○" };
const ROW_HEIGHT = 52, NAMES = 330; // pixels

panel({
  id: "answer",
  title: "The answer: does thinking help here?",
  about: "Gain: a control's held-out loss minus the thinking model's, same seed, same data. Right of 0: thinking is better.",
  uses: ["cell", "control"],
  draw(body, width) {
    const cell = cellNow();
    drawVerdict(body, cell);
    if (controlsOf(cell).some((arm) => cell.arms[arm].gain)) drawForest(body, cell, width);
    drawNotes(body, cell);
    body.append(html("details", {}, [html("summary", { "data-id": "numbers" }, "all arms in numbers"), armTable(cell)]));
    return answerRows();
  },
});

function drawVerdict(body, cell) {
  if (DATA.cells.length > 1) {
    const counts = new Map();
    for (const { verdict } of DATA.cells) if (verdict) counts.set(inLabels(verdict.word), [...(counts.get(inLabels(verdict.word)) ?? []), verdict.standing]);
    const words = [...counts].sort((a, b) => a[1][0] - b[1][0]).map(([word, all]) => `${all.length} × ${word}`);
    const silent = DATA.cells.filter((one) => !one.thinks).length;
    if (silent) words.push(`${silent} that ${silent === 1 ? "does" : "do"} not think`);
    body.append(html("p", { class: "quiet", id: "tally" }, shown(`${DATA.cells.length} cells: ${words.join("; ")}.`)));
    body.append(html("h3", {}, shown(`${cellLabel(cell)} (cell ${DATA.cells.indexOf(cell) + 1} of ${DATA.cells.length})`)));
  }
  if (!cell.verdict) {
    body.append(html("p", { class: "verdict", id: "verdict" }, "no verdict: this run has no thoughts"));
    return;
  }
  const words = shown(inLabels(cell.verdict.text));
  body.append(html("p", { class: "verdict", id: "verdict" }, words[0].toUpperCase() + words.slice(1)));
  body.append(html("p", { class: "meaning", id: "meaning" }, shown(cell.verdict.sentence)));
}

// A verdict that names its controls as the page does.
function inLabels(words) {
  return words.replace(/\w+/g, (word) => DATA.names[word] ?? word);
}

// The horizontal range: all judged controls' seeds and intervals; what lies far beyond is cut off and marked.
function forestRange(cell, arms) {
  const ends = (list) => list.flatMap((arm) => {
    const { mean: middle, half_width: half, values } = cell.arms[arm].gain;
    return [...values, ...(half === null || middle === null ? [] : [middle - half, middle + half])];
  }).filter(Number.isFinite);
  const judged = arms.filter((arm) => cell.arms[arm].judged);
  const near = ends(judged.length ? judged : arms);
  const reach = Math.max(...near, 0) - Math.min(...near, 0) || 1;
  const also = ends(arms).filter((x) => x > Math.min(...near) - reach / 2 && x < Math.max(...near) + reach / 2);
  return range(near, [0, ...also]);
}

function drawForest(body, cell, width) {
  const arms = controlsOf(cell);
  const known = arms.filter((arm) => cell.arms[arm].gain);
  const narrow = width < 700;
  const left = narrow ? 8 : NAMES + 16, right = narrow ? width - 8 : width - 250;
  const row = narrow ? 66 : ROW_HEIGHT;
  const node = drawing(body, width, row * arms.length + 56, "gain of thinking over each control");
  const x = scale("linear", forestRange(cell, known), [left, right]);
  const bottom = row * arms.length + 8;
  for (const tick of x.ticks(Math.max(3, (right - left) / 90))) {
    for (let place = 0; place < (narrow ? arms.length : 1); place += 1)
      svg(node, "line", { x1: x(tick), x2: x(tick), y1: narrow ? place * row + 28 : 4, y2: narrow ? (place + 1) * row + 2 : bottom, class: tick ? "grid" : "zero" });
    text(node, x(tick), bottom + 16, signedTick(tick), { "text-anchor": "middle" });
  }
  text(node, left, bottom + 34, "← not thinking is better", { class: "quiet" });
  text(node, right, bottom + 34, "thinking is better →", { "text-anchor": "end", class: "quiet" });
  if (!narrow) text(node, (left + right) / 2, bottom + 34, "gain, nats", { "text-anchor": "middle", class: "quiet" });
  arms.forEach((arm, place) => {
    const group = svg(node, "g", {});
    if (arm === controlNow()) svg(group, "rect", { x: 0, y: place * row + 3, width, height: row - 4, rx: 5, fill: "var(--soft)" });
    drawControl(group, cell, arm, { x, y: place * row + (narrow ? 48 : row / 2), top: place * row, narrow, width });
    pressable(group, `${label(arm)}: ${cell.arms[arm].gain?.text ?? "not finished"}`, `forest-${arm}`, () => choose({ control: arm }));
  });
}

function signedTick(value) {
  return value > 0 ? `+${tickText(value)}` : tickText(value);
}

function drawControl(group, cell, arm, { x, y, top, narrow, width }) {
  const found = cell.arms[arm];
  const middle = narrow ? top + 20 : top + 18;
  svg(group, "rect", { x: 0, y: top, width, height: 40, fill: "transparent" });
  svg(group, "circle", { cx: 10, cy: middle - 4, r: 5, fill: colour(arm) });
  const name = found.judged ? label(arm) : `${label(arm)} (not judged)`;
  text(group, 22, middle, name, { class: found.judged ? "strong" : "quiet", "font-size": 13 });
  if (!narrow) lines(found.words, NAMES - 26).slice(0, 2).forEach((line, at) => text(group, 22, middle + 14 + 13 * at, line, { class: "quiet small" }));
  hint(group, `${label(arm)}: ${found.words}`);
  if (!found.gain) {
    const seeds = cell.missing[arm];
    text(group, x.start, y + 4, seeds ? `not finished: seeds ${spans(seeds)}` : "no seed in common with the thinking run", { class: "quiet" });
    return;
  }
  const { values, mean: centre, half_width: half, text: words, word } = found.gain;
  const inside = (value) => Math.min(Math.max(x(value), x.start), x.end);
  if (centre !== null) {
    const [low, high] = [centre - (half ?? 0), centre + (half ?? 0)];
    svg(group, "line", { x1: inside(low), x2: inside(high), y1: y + 5, y2: y + 5, stroke: colour(arm), "stroke-width": 2.5 });
    if (x(centre) >= x.start && x(centre) <= x.end) svg(group, "circle", { cx: x(centre), cy: y + 5, r: 6, fill: colour(arm) });
    if (x(low) < x.start || x(high) > x.end) {
      const [at, way] = x(high) > x.end ? [x.end, 1] : [x.start, -1];
      svg(group, "path", { d: `M${at} ${y - 1}l${way * 8} 6l${-way * 8} 6z`, fill: colour(arm) });
    }
  }
  values.forEach((value, at) => {
    if (value === null || x(value) < x.start || x(value) > x.end) return;
    const dot = svg(group, "circle", { cx: x(value), cy: y - 8, r: 3.4, fill: colour(arm), "fill-opacity": 0.65, class: "seed" });
    hint(dot, `seed ${found.gain.seeds[at]}: ${signed(value)} nats`);
  });
  const [textX, anchor] = narrow ? [width - 8, "end"] : [width - 236, "start"];
  const verdict = `${SYMBOL[word]} ${word}`;
  if (narrow) text(group, textX, middle, `${words}  ${verdict}`, { "text-anchor": anchor, class: "gain" });
  else {
    text(group, textX, y + 4, words, { class: "gain", "data-arm": arm, "font-size": 13 });
    text(group, width - 96, y + 4, verdict, { class: "strong word", "data-arm": arm, "font-size": 13 });
  }
}

function drawNotes(body, cell) {
  const own = cell.arms[cell.run];
  const floor = DATA.floor === null ? "" : ` The best possible is ${number(DATA.floor)}.`;
  const losses = [["nll_shuffled", "with another sequence's thoughts"], ["nll_no_thought", "without a thought"]]
    .filter(([name]) => cell.thoughts[name] !== null && cell.thoughts[name] !== undefined)
    .map(([name, words]) => `${number(cell.thoughts[name])} ${words}`);
  const used = losses.length ? `; the same model: ${losses.join(", ")}` : "";
  const said = [`Loss of the ${cell.thinks ? "thinking model" : "run"}: ${own.nll.text} nats per prediction${used}.${floor}`];
  if (cell.judged_seeds)
    said.push(`Seeds that started to think (their predictions suffer without their own thoughts): ${cell.started} of ${cell.judged_seeds}` +
      (cell.without_thought ? "." : ", judged by other sequences' thoughts alone: the model predicts nothing without a thought."));
  for (const line of cell.same) said.push(`${line}.`);
  for (const [arm, seeds] of Object.entries(cell.missing)) said.push(`Not finished: ${label(arm)}, seed ${spans(seeds)}.`);
  const judged = cell.verdict?.judged ? `The verdict is by paired t-tests at 5 %${cell.verdict.cells > 1 ? `, corrected (Holm) for ${cell.verdict.cells} cells` : ""};` +
    " a line or a word beside a control is its own 95 % interval, uncorrected; small dots are seeds." : "";
  for (const line of [...said, ...cell.notes, judged]) if (line) body.append(html("p", { class: "quiet note" }, shown(line)));
}

const COST_NAMES = {
  parameters: "used parameters", recurrent_steps_per_token: "recurrent steps per token", flops_per_token: "FLOPs per token",
  train_steps: "training steps", cpu_seconds: "CPU s per seed",
};

function armTable(cell) {
  const names = ["arm", "seeds", "loss, nats", "accuracy, %", "gain of thinking, nats", ...Object.values(COST_NAMES)];
  const rows = Object.entries(cell.arms).map(([arm, found]) => [
    label(arm), found.nll.seeds.length, found.nll.text, found.accuracy.text, found.gain?.text ?? "–",
    ...Object.keys(COST_NAMES).map((cost) => human(found.costs[cost])),
  ]);
  return table([names, ...rows], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

function answerRows() {
  const rows = [["cell", "arm", "seed", "nll", "gain", "key"]];
  for (const cell of DATA.cells) {
    for (const [arm, found] of Object.entries(cell.arms)) {
      found.nll.seeds.forEach((seed, at) => {
        const place = found.gain?.seeds.indexOf(seed) ?? -1;
        rows.push([cell.name, arm, seed, found.nll.values[at], place < 0 ? null : found.gain.values[place], found.keys[at]]);
      });
    }
  }
  return rows;
}
