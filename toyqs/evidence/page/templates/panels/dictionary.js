// The dictionary: what the thoughts of a run stand for, over all counted positions of its record.

const MOST_WORDS = 20, MOST_ANSWERS = 14, MOST_SYMBOLS = 30, MOST_POINTS = 1500;

panel({
  id: "dictionary",
  title: "The dictionary: what a thought stands for",
  about: "Each line is a thought and what the answer was when it was thought, in percent. Click one to see an example above.",
  uses: ["cell", "run", "time", "word"],
  controls() { return runNow() ? [timeSlider()].filter(Boolean) : []; },
  draw(body, width) {
    const run = runNow();
    if (!run) { noRecord(body); return [["no record"]]; }
    const thoughts = new Thoughts(run.key, timeNow());
    const words = countWords(thoughts);
    const total = words.reduce((sum, word) => sum + word.count, 0);
    body.append(html("p", { class: "quiet", id: "dictionary-of" }, shown(`${run.name}, ${thoughts.when}: ${total.toLocaleString("en")} thoughts at ${thoughts.sequences.length} held-out sequences, ${several(words.length, "different one")}` +
      `${thoughts.arrays.nearest ? "; a vector is called by its nearest named symbol" : ""}.`)));
    if (thoughts.record.symbols) drawWords(body, thoughts, words, width);
    if (thoughts.arrays.vectors) drawScatter(body, thoughts, width);
    if (thoughts.record.symbols) drawUsage(body, thoughts, width);
    if (thoughts.step === null) drawFeatures(body, run, width);
    drawMeans(body);
    drawGaps(body, cellNow().arms[cellNow().run].keys);
    return wordRows(words, thoughts);
  },
});

// Every thought that occurs: its symbols, how often, and how often with each answer; the most frequent first.
function countWords(thoughts) {
  const found = new Map();
  for (const { row, t } of thoughts.places()) {
    const answer = thoughts.arrays.truth.at(row, t);
    for (let k = 0; k < thoughts.count; k += 1) {
      const symbols = thoughts.symbols(row, t, k);
      if (!symbols) continue;
      const name = symbols.join(" ");
      if (!found.has(name)) found.set(name, { name, symbols, count: 0, answers: new Map(), examples: [] });
      const word = found.get(name);
      word.count += 1;
      word.answers.set(answer, (word.answers.get(answer) ?? 0) + 1);
      word.examples.push(thoughts.named(row, t));
    }
  }
  return [...found.values()].sort((a, b) => b.count - a.count || a.name.localeCompare(b.name));
}

function purity(word) { return Math.max(...word.answers.values()) / word.count; }

// The answer that a thought came with most often.
function standsFor(word) { return [...word.answers].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0][0]; }

// The answers in columns: all of them, or the most frequent.
function answerColumns(words) {
  const totals = new Map();
  for (const word of words) for (const [answer, count] of word.answers) totals.set(answer, (totals.get(answer) ?? 0) + count);
  const often = [...totals].sort((a, b) => b[1] - a[1]).slice(0, MOST_ANSWERS).map(([answer]) => answer);
  const ascending = (answers) => answers.sort((a, b) => a - b);
  return { shownAnswers: ascending(often), all: ascending([...totals.keys()]) };
}

function drawWords(body, thoughts, words, width) {
  const { record } = thoughts;
  const { shownAnswers, all } = answerColumns(words);
  const lines = words.slice(0, MOST_WORDS);
  const wordWidth = Math.max(70, ...lines.map((word) => word.symbols.reduce((sum, symbol) => sum + Math.max(20, widthOf(tokenText(record.symbols[symbol]), MONO) + 10) + 3, 0)));
  const ofName = (word) => tokenText(record.tokens[standsFor(word)]);
  const nameWidth = Math.min(140, Math.max(66, ...lines.map((word) => widthOf(ofName(word), MONO) + 8)));
  const left = wordWidth + nameWidth + 124;
  const rest = all.length > shownAnswers.length;
  const columns = shownAnswers.length + (rest ? 1 : 0);
  const size = Math.max(24, Math.min(48, (width - left - (rest ? 16 : 8)) / columns));
  const node = drawing(body, Math.max(width, left + size * columns), 44 + 26 * lines.length, "dictionary");
  text(node, 0, 32, "thought", { class: "quiet" });
  text(node, wordWidth + 50, 32, "times", { class: "quiet", "text-anchor": "end" });
  text(node, wordWidth + 62, 32, "stands for", { class: "quiet" });
  text(node, left - 12, 32, "purity", { class: "quiet", "text-anchor": "end" });
  text(node, left, 14, `the answer, % of the times${rest ? ` (${shownAnswers.length} most frequent of ${all.length} answers)` : ""}`, { class: "quiet" });
  shownAnswers.forEach((answer, at) => {
    const name = tokenText(record.tokens[answer]);
    hint(text(node, left + (at + 0.5) * size, 32, fitted(name, size - 2, MONO), { "text-anchor": "middle", class: "mono" }), name);
  });
  if (rest) text(node, left + (columns - 0.5) * size, 32, "rest", { "text-anchor": "middle", class: "quiet" });
  lines.forEach((word, line) => drawLine(node, thoughts, word, { y: 40 + 26 * line, wordWidth, nameWidth, left, size, shownAnswers, rest }));
  if (words.length > lines.length) body.append(html("p", { class: "quiet" }, `and ${words.length - lines.length} rarer ones, in the CSV`));
}

function drawLine(node, thoughts, word, { y, wordWidth, nameWidth, left, size, shownAnswers, rest }) {
  const names = word.symbols.map((symbol) => thoughts.record.symbols[symbol]).join(" ");
  const group = pressable(svg(node, "g", { class: "word" }), `thought ${names}, ${several(word.count, "time")}: an example`, `word-${word.name}`, () => showExample(word));
  const counts = shownAnswers.map((answer) => word.answers.get(answer) ?? 0);
  if (rest) counts.push(word.count - counts.reduce((sum, count) => sum + count, 0));
  svg(group, "rect", { x: -4, y, width: left + size * counts.length + 4, height: 25, rx: 4, fill: state.word === word.name ? "var(--soft)" : "transparent" });
  let x = 0;
  for (const symbol of word.symbols) x += symbolChip(group, thoughts.record, symbol, x, y + 2) + 3;
  if (!word.symbols.length) text(group, 0, y + 17, "(empty)", { class: "quiet" });
  text(group, wordWidth + 50, y + 17, word.count, { "text-anchor": "end", class: "count" });
  const answer = tokenText(thoughts.record.tokens[standsFor(word)]);
  svg(group, "text", { x: wordWidth + 62, y: y + 17, class: "stands", "font-family": "DejaVu Sans Mono, monospace", "font-size": 13 }, fitted(answer, nameWidth - 6, MONO));
  text(group, left - 12, y + 17, `${Math.round(100 * purity(word))} %`, { "text-anchor": "end", class: "purity" });
  counts.forEach((count, at) => {
    const part = count / word.count;
    const back = mixed(theme("card"), theme("accent"), part);
    svg(group, "rect", { x: left + at * size + 1, y: y + 1, width: size - 2, height: 23, fill: back });
    if (part >= 0.005) svg(group, "text", { x: left + (at + 0.5) * size, y: y + 17, "text-anchor": "middle", style: `fill:${onto(back)}` }, String(Math.round(100 * part)));
  });
}

// The word's next example, in the browser above.
function showExample(word) {
  const now = word.examples.findIndex(({ sequence, position }) => String(sequence) === state.sequence && String(position) === state.position);
  const next = word.examples[(now + 1) % word.examples.length];
  choose({ word: word.name, ...next });
  PANELS.find((spec) => spec.id === "thoughts").section.scrollIntoView({ block: "nearest" });
}

// How often each symbol stands at each place of a thought.
function drawUsage(body, thoughts, width) {
  const { record } = thoughts;
  const length = (thoughts.arrays.symbols ?? thoughts.arrays.nearest).shape[3];
  const counts = Array.from({ length }, () => new Map());
  const totals = new Map();
  let number_ = 0;
  for (const { row, t } of thoughts.places()) {
    for (let k = 0; k < thoughts.count; k += 1) {
      number_ += 1;
      thoughts.symbols(row, t, k).forEach((symbol, place) => {
        counts[place].set(symbol, (counts[place].get(symbol) ?? 0) + 1);
        totals.set(symbol, (totals.get(symbol) ?? 0) + 1);
      });
    }
  }
  const often = [...totals].sort((a, b) => b[1] - a[1]).slice(0, MOST_SYMBOLS).map(([symbol]) => symbol).sort((a, b) => a - b);
  body.append(html("h3", {}, "Which symbol stands where"));
  const left = 90;
  const room = often.map((symbol) => Math.max(30, widthOf(tokenText(record.symbols[symbol]), MONO) + 12));
  const scaleDown = Math.min(1, (width - left) / room.reduce((a, b) => a + b, 0));
  const node = drawing(body, width, 32 + 24 * length, "symbols by place");
  let x = left;
  often.forEach((symbol, at) => {
    const wide = room[at] * scaleDown;
    if (scaleDown === 1) symbolChip(node, record, symbol, x + (wide - Math.max(20, room[at] - 2)) / 2, 2);
    else text(node, x + wide / 2, 16, fitted(tokenText(record.symbols[symbol]), wide, MONO), { "text-anchor": "middle", class: "mono" });
    counts.forEach((count, place) => {
      const part = (count.get(symbol) ?? 0) / number_;
      const back = mixed(theme("card"), theme("accent"), Math.min(1, part * 1.6));
      const box = svg(node, "rect", { x: x + 1, y: 28 + 24 * place, width: wide - 2, height: 22, fill: back });
      hint(box, `${tokenText(record.symbols[symbol])} at place ${place + 1}: ${(100 * part).toFixed(1)} %`);
      if (part >= 0.005) svg(node, "text", { x: x + wide / 2, y: 43 + 24 * place, "text-anchor": "middle", style: `fill:${onto(back)}` }, String(Math.round(100 * part)));
    });
    x += wide;
  });
  counts.forEach((_, place) => text(node, 0, 43 + 24 * place, `symbol ${place + 1}, %`, { class: "quiet" }));
}

// --- thoughts that are vectors: their two main directions, coloured by the answer

function drawScatter(body, thoughts, width) {
  const { record } = thoughts;
  const length = thoughts.arrays.vectors.shape[3];
  const shownPlaces = Math.min(length, 3);
  body.append(html("h3", {}, "Thoughts as points, coloured by the answer"));
  const size = Math.min(360, (width - 20 * (shownPlaces - 1)) / shownPlaces);
  const node = drawing(body, width, size + 46, "thoughts as points");
  const places = thoughts.places();
  const each = Math.max(1, Math.floor((places.length * thoughts.count) / MOST_POINTS));
  const times = new Map();
  for (const { row, t } of places) { const answer = thoughts.arrays.truth.at(row, t); times.set(answer, (times.get(answer) ?? 0) + 1); }
  const answers = [...times].sort((a, b) => b[1] - a[1]).slice(0, SERIES.length).map(([answer]) => answer).sort((a, b) => a - b);
  const hue = (answer) => (answers.includes(answer) ? ink(SERIES[answers.indexOf(answer)]) : theme("none"));
  for (let place = 0; place < shownPlaces; place += 1) {
    const points = [];
    places.forEach(({ row, t }, at) => {
      for (let k = 0; k < thoughts.count; k += 1)
        if ((at * thoughts.count + k) % each === 0) points.push({ vector: thoughts.vector(row, t, k, place), answer: thoughts.arrays.truth.at(row, t) });
    });
    points.sort((a, b) => answers.includes(a.answer) - answers.includes(b.answer)); // the rest behind
    const flat = mainDirections(points.map((point) => point.vector));
    const left = place * (size + 20);
    const x = scale("linear", range(flat.map((point) => point[0])), [left, left + size]);
    const y = scale("linear", range(flat.map((point) => point[1])), [size, 0]);
    svg(node, "rect", { x: left, y: 0, width: size, height: size, fill: "none", stroke: theme("line") });
    flat.forEach(([px, py], at) => svg(node, "circle", { cx: x(px), cy: y(py), r: 2.6, fill: hue(points[at].answer), "fill-opacity": 0.75 }));
    text(node, left + size / 2, size + 16, `symbol ${place + 1} of ${length}`, { "text-anchor": "middle", class: "quiet" });
  }
  let x = 0;
  for (const answer of [...answers, ...(times.size > answers.length ? [null] : [])]) {
    svg(node, "circle", { cx: x + 5, cy: size + 34, r: 5, fill: hue(answer) });
    const words = answer === null ? "any other" : fitted(tokenText(record.tokens[answer]), 120, MONO);
    text(node, x + 14, size + 38, words, { class: "mono" });
    x += 28 + widthOf(words, MONO);
  }
  if (thoughts.arrays.vectors.shape[4] > 2) body.append(html("p", { class: "quiet" }, "The two directions in which the vectors differ most (principal components), each symbol by itself."));
}

// Points in the plane of the two main directions of vectors; as they are where they have two numbers or one.
function mainDirections(vectors) {
  const width = vectors[0].length;
  if (width === 1) return vectors.map(([z], at) => [z, (at * 0.618) % 1]);
  if (width === 2) return vectors;
  const middle = Array.from({ length: width }, (_, z) => mean(vectors.map((vector) => vector[z])));
  const centred = vectors.map((vector) => vector.map((value, z) => value - middle[z]));
  const spread = Array.from({ length: width }, (_, a) => Array.from({ length: width }, (_, b) => mean(centred.map((vector) => vector[a] * vector[b]))));
  const found = [];
  for (let which = 0; which < 2; which += 1) {
    let direction = Array.from({ length: width }, (_, z) => 1 / (1 + z + which));
    for (let turn = 0; turn < 200; turn += 1) {
      let next = spread.map((line) => line.reduce((sum, value, z) => sum + value * direction[z], 0));
      for (const other of found) {
        const along = next.reduce((sum, value, z) => sum + value * other[z], 0);
        next = next.map((value, z) => value - along * other[z]);
      }
      const size = Math.hypot(...next) || 1;
      direction = next.map((value) => value / size);
    }
    found.push(direction);
  }
  return centred.map((vector) => found.map((direction) => vector.reduce((sum, value, z) => sum + value * direction[z], 0)));
}

function wordRows(words, thoughts) {
  const { tokens, symbols } = thoughts.record;
  const { all } = answerColumns(words);
  const rows = [["thought", "times", "stands for", "purity", ...all.map((answer) => `answer ${tokens[answer]}`)]];
  for (const word of words) rows.push([word.symbols.map((symbol) => symbols[symbol]).join(" "), word.count, tokens[standsFor(word)], purity(word), ...all.map((answer) => word.answers.get(answer) ?? 0)]);
  return rows;
}

// What the thoughts tell of the answer and of each of the task's named features: whole, and by place.
function drawFeatures(body, run, width) {
  const told = DATA.records.told[run.key];
  if (!told.length) return;
  const whole = (about) => told.find((one) => one.about === about && one.by === null);
  const abouts = [...new Set(told.map((one) => one.about))];
  const places = told.filter((one) => one.about === abouts[0] && one.by !== null).length;
  body.append(html("h3", {}, "What thoughts tell, in nats"));
  const left = Math.min(150, 0.35 * width), right = Math.max(left + 40, width - 190), each = 30;
  const node = drawing(body, width, each * abouts.length + 70, "information about the answer and each feature");
  const x = scale("linear", [0, Math.max(...told.map((one) => one.entropy))], [left, right]);
  for (const tick of x.ticks(6)) {
    svg(node, "line", { x1: x(tick), x2: x(tick), y1: 4, y2: each * abouts.length, class: "grid" });
    text(node, x(tick), each * abouts.length + 15, tickText(tick), { "text-anchor": "middle" });
  }
  abouts.forEach((about, line) => {
    const y = each * line + 8;
    const all = whole(about);
    const name = about === null ? "the answer" : about;
    text(node, left - 8, y + 11, fitted(name, left - 12), { "text-anchor": "end" });
    svg(node, "rect", { x: left, y, width: x(all.entropy) - left, height: 14, fill: "none", stroke: theme("quiet") });
    const over = Math.max(0, all.information - all.chance);
    hint(svg(node, "rect", { x: left, y, width: Math.max(0, x(over) - left), height: 14, fill: theme("accent") }), `${name}: ${number(all.information)} nats, of which ${number(all.chance)} by chance; at most ${number(all.entropy)}`);
    const marks = told.filter((one) => one.about === about && one.by !== null).map((one) => ({ at: x(Math.max(0, one.information - one.chance)), name: one.by + 1 }));
    marks.sort((a, b) => a.at - b.at).forEach(({ at, name: place }, which) => {
      svg(node, "line", { x1: at, x2: at, y1: y - 2, y2: y + 16, stroke: theme("ink"), "stroke-width": 1.5 });
      if (!which || at - marks[which - 1].at > 8) text(node, at, y - 3, place, { "text-anchor": "middle", "font-size": 9 });
    });
    text(node, right + 10, y + 11, `${number(over, 2)} of ${number(all.entropy, 2)} (${all.share === null ? "–" : `${Math.round(100 * all.share)} %`})`, { class: "told" });
  });
  caption(node, left, each * abouts.length + 34, `bars: whole thoughts${places ? "; marks: one symbol alone, by its place" : ""}; frames: all there is to tell; chance taken off`, width - left);
}

// What the rows say of the thoughts, over all held-out sequences.
function drawMeans(body) {
  const { information, information_most: most, thought_entropy: entropy, pass_at_k: passes } = cellNow().thoughts;
  const known = (value) => value !== null && value !== undefined;
  const said = [
    known(entropy) && `entropy of a thought ${number(entropy, 2)} nats`,
    known(information) && `mutual information of thought and context ${number(information, 2)} nats (of at most ${number(most, 2)})`,
    known(passes) && `with one of its thoughts or more the answer is the likeliest at ${(100 * passes).toFixed(1)} % of positions (pass@K)`,
  ].filter(Boolean);
  if (said.length) body.append(html("p", { class: "quiet", id: "thought-means" }, `In the rows, means over the seeds: ${said.join("; ")}.`));
}
