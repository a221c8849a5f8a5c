// Panels: each is drawn anew when something that it shows was chosen, and goes out as SVG and CSV.

const PANELS = []; // in the order of the page

// A panel: `id`, `title`, `about` (a sentence), `uses` (names of the state that it depends on), `controls` (a
// list of elements) and `draw` (body, width) -> rows of the CSV, headings first; `keys` (event) -> handled.
function panel(spec) {
  PANELS.push(spec);
}

function build(spec, place) {
  const head = html("h2", {}, [`${place + 1}. ${spec.title}`]);
  const save = ["svg", "csv"].map((kind) =>
    html("button", { title: `download this panel as ${kind.toUpperCase()}`, "data-save": kind, onclick: () => download(spec, kind) },
      kind.toUpperCase()));
  spec.box = html("div", { class: "controls" });
  spec.body = html("div", { class: "body" });
  spec.section = html("section", { id: spec.id, tabindex: -1 }, [
    html("div", { class: "top" }, [head, html("div", { class: "tools" }, save)]),
    html("p", { class: "about" }, spec.about),
    spec.box,
    spec.body,
  ]);
  if (spec.keys) {
    spec.section.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && !hasKeys(event.target) && spec.keys(event.key))
        event.preventDefault();
    });
  }
  return spec.section;
}

function redraw(changed) {
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  const all = !changed || changed.includes("theme");
  for (const spec of PANELS) if (all || spec.uses.some((name) => changed.includes(name))) drawPanel(spec);
  drawTools();
}

function drawPanel(spec) {
  const focused = spec.section.contains(document.activeElement) ? document.activeElement.dataset?.id : null;
  const width = Math.max(300, spec.section.clientWidth - 38);
  const opened = new Set([...spec.body.querySelectorAll("details[open] > summary")].map((node) => node.dataset.id));
  spec.body.replaceChildren();
  try {
    refresh(spec.box, spec.controls?.() ?? []);
    spec.rows = spec.draw(spec.body, width) ?? [];
  } catch (error) { // is said here; the panels after it are drawn all the same
    spec.rows = [["this panel could not be drawn"], [String(error)]];
    spec.body.append(html("p", { class: "problem" }, shown(`This panel cannot be drawn: ${error}`)));
    console.error(error);
  }
  for (const node of spec.body.querySelectorAll("summary")) node.parentNode.open = opened.has(node.dataset.id);
  if (focused) [...spec.section.querySelectorAll("[data-id]")].find((node) => node.dataset.id === focused)?.focus({ preventScroll: true });
}

function selector(name, id, options, now, act) {
  const made = options.map(([value, words]) => html("option", { value, selected: value === now }, shown(words)));
  return html("label", {}, [name, html("select", { "data-id": id, onchange: (event) => act(event.target.value) }, made)]);
}

// A slider over values, each with its words beside it.
function slider(name, id, options, now, act) {
  const at = Math.max(0, options.findIndex(([value]) => value === now));
  const words = options[at][1];
  return html("label", {}, [name, html("input", { type: "range", "data-id": id, min: 0, max: options.length - 1, value: at, "aria-valuetext": words,
    oninput: (event) => act(options[event.target.value][0]) }), html("output", {}, words)]);
}

// Whether an element answers to keys itself.
function hasKeys(node) { return ["SELECT", "INPUT"].includes(node.tagName); }

// Put new controls in the place of old ones, but for a slider that is in the reader's hand.
function refresh(box, made) {
  const held = [...box.children].find((node) => node.querySelector("input:focus"));
  if (!held || made.length !== box.children.length) { box.replaceChildren(...made); return; }
  [...box.children].forEach((old, at) => {
    if (old !== held) { old.replaceWith(made[at]); return; }
    const [input, next] = [old, made[at]].map((node) => node.querySelector("input"));
    input.value = next.value;
    input.setAttribute("aria-valuetext", next.getAttribute("aria-valuetext"));
    old.querySelector("output").textContent = made[at].querySelector("output").textContent;
  });
}

function table(rows, numeric = []) {
  const [names, ...lines] = rows;
  const cell = (kind) => (words, place) => html(kind, { class: numeric.includes(place) ? "number" : null }, shown(words ?? "–"));
  return html("div", { class: "wide" }, html("table", {}, [
    html("thead", {}, html("tr", {}, names.map(cell("th")))),
    html("tbody", {}, lines.map((line) => html("tr", {}, line.map(cell("td"))))),
  ]));
}

// --- downloads

// Rows as CSV; a text that a table would take for a formula begins with an apostrophe.
function csvText(rows) {
  const cell = (value) => {
    const given = value === null || value === undefined ? "" : String(value);
    const words = /^[=+\-@\t\r]/.test(given) && !Number.isFinite(Number(given)) ? `'${given}` : given;
    return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

const LOOKS = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "opacity", "font-size",
  "font-family", "font-weight", "text-anchor", "paint-order", "stroke-linejoin"];

// The drawings of a panel in one, below each other; its rows as text where it has none.
function svgText(spec) {
  const parts = [...spec.body.querySelectorAll("svg")].filter((node) => !node.parentNode.closest("svg"));
  const drawn = parts.length ? parts : [tableDrawing(spec.rows)];
  const width = Math.max(...drawn.map((node) => Number(node.getAttribute("width"))));
  let height = 30;
  const whole = svg(null, "svg", { xmlns: SVG, "font-family": "DejaVu Sans, sans-serif", "font-size": 12 });
  const back = svg(whole, "rect", { width: "100%", height: "100%", fill: theme("card") });
  svg(whole, "text", { x: 8, y: 20, fill: theme("ink"), "font-size": 14 }, `${spec.title}: ${shown(cellLabel(cellNow()))}`);
  for (const node of drawn) {
    const copy = node.cloneNode(true);
    const group = svg(whole, "g", { transform: `translate(0 ${height})` });
    const [olds, news] = [node, copy].map((one) => [...one.querySelectorAll("*")]);
    if (node.isConnected) news.forEach((one, at) => {
      const look = getComputedStyle(olds[at]);
      for (const name of LOOKS) if (look.getPropertyValue(name)) one.setAttribute(name, look.getPropertyValue(name));
      for (const name of ["class", "role", "tabindex", "data-id", "style"]) one.removeAttribute(name);
    });
    group.append(...copy.childNodes);
    height += Number(node.getAttribute("height")) + 12;
  }
  fill(whole, { width, height, viewBox: `0 0 ${width} ${height}` }, []);
  back.setAttribute("height", height);
  return new XMLSerializer().serializeToString(whole);
}

function tableDrawing(rows) {
  const cells = rows.map((row) => row.map((cell) => shown(cell ?? "")));
  const font = "11px DejaVu Sans Mono, monospace";
  const widths = (cells[0] ?? []).map((_, place) => Math.max(...cells.map((row) => widthOf(row[place] ?? "", font))) + 18);
  const node = svg(null, "svg", { width: Math.max(300, widths.reduce((a, b) => a + b, 16)), height: 16 * rows.length + 16 });
  cells.forEach((row, line) => {
    let x = 8;
    row.forEach((cell, place) => {
      svg(node, "text", { x, y: 16 * (line + 1), fill: theme("ink"), "font-size": 11, "font-family": "DejaVu Sans Mono, monospace" }, cell);
      x += widths[place];
    });
  });
  return node;
}

function download(spec, kind) {
  const content = kind === "csv" ? csvText(spec.rows) : svgText(spec);
  const link = html("a", {
    href: URL.createObjectURL(new Blob([content], { type: kind === "csv" ? "text/csv" : "image/svg+xml" })),
    download: `toyqs-${spec.id}.${kind}`,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a busy browser takes its time to begin
}
