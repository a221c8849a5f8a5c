// The frame of the page: its tools, its keys, and how it starts.

const KEYS = [
  ["1 … 7", "go to a panel"], ["[ ]", "the cell before, the next cell"], ["t", "light or dark"],
  ["← →", "in the thought browser: the position; in the explorer: the cell"],
  ["↑ ↓", "in the thought browser: the sequence; in the heat map: the cell"],
  ["g l w", "thought browser: next where thinking gained most, lost most, was wrong"], ["?", "these keys"],
];

function drawTools() {
  const tools = [];
  if (DATA.cells.length > 1) {
    tools.push(selector("cell", "cell", DATA.cells.map((cell) => [cell.id, cellLabel(cell)]), cellNow().id, (cell) => choose({ cell })));
    tools.push(html("button", { "data-id": "before", title: "the cell before: [", onclick: () => moveCell(-1) }, "◀"));
    tools.push(html("button", { "data-id": "after", title: "the next cell: ]", onclick: () => moveCell(1) }, "▶"));
  }
  tools.push(html("button", { "data-id": "theme", title: "light or dark: t", onclick: switchTheme }, dark() ? "light" : "dark"));
  tools.push(html("button", { "data-id": "help", title: "keys: ?", onclick: showHelp }, "keys ?"));
  const place = document.getElementById("tools");
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  place.replaceChildren(...tools);
  if (focused) place.querySelector(`[data-id="${focused}"]`)?.focus();
}

function moveCell(step) {
  const next = DATA.cells[DATA.cells.indexOf(cellNow()) + step];
  if (next) choose({ cell: next.id });
}

function switchTheme() { choose({ theme: dark() ? "light" : "dark" }); }

function showHelp() {
  const help = document.getElementById("help");
  const rows = KEYS.map(([keys, words]) => html("tr", {}, [html("td", {}, keys.split(" ").map((key) => html("kbd", {}, key))), html("td", {}, words)]));
  help.replaceChildren(html("h2", {}, "Keys"), html("table", {}, rows),
    html("p", { class: "quiet" }, "All that you choose is in the page's address: copy it to show somebody the same."),
    html("button", { onclick: () => help.close() }, "close"));
  help.showModal();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || hasKeys(event.target) || document.getElementById("help").open) return;
  const number = Number(event.key);
  const acts = { "[": () => moveCell(-1), "]": () => moveCell(1), t: switchTheme, "?": showHelp, g: () => jump("gained"), l: () => jump("lost"), w: () => jump("wrong") };
  if (number >= 1 && number <= PANELS.length) {
    const { section } = PANELS[number - 1];
    section.scrollIntoView();
    section.focus({ preventScroll: true });
  } else if (acts[event.key]) acts[event.key]();
  else return;
  event.preventDefault();
}

async function readAll() {
  await readData();
  document.getElementById("title").textContent = shown(DATA.title);
  document.getElementById("setting").textContent = shown(`${DATA.setting.replace(DATA.title, "").replace(/^, /, "")} · ${DATA.folder}`);
}

async function start() {
  readHash();
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
  await readAll();
  const sections = PANELS.map(build);
  document.getElementById("main").replaceChildren(...sections);
  redraw();
  addEventListener("hashchange", () => { const changed = readHash(); if (changed.length) redraw(changed); });
  addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
  if (DATA.watched) setInterval(() => { if (!document.hidden) lookAgain(); }, 1000 * Math.max(1, DATA.watched));
  document.documentElement.dataset.ready = "yes";
}

if (self.name !== LOOK) start().catch((error) => {
  document.getElementById("loading")?.replaceWith(html("p", { class: "problem" }, `The data of this page cannot be read: ${error.message}`));
  throw error;
});
