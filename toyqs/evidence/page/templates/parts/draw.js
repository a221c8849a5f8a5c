// Elements of HTML and SVG. Text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...[children].flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

function html(name, attributes = {}, children = []) {
  return fill(document.createElement(name), attributes, children);
}

function svg(parent, name, attributes = {}, children = []) {
  const node = fill(document.createElementNS(SVG, name), attributes, children);
  parent?.append(node);
  return node;
}

function drawing(parent, width, height, name) {
  const node = svg(parent, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": name });
  node.style.width = `${width}px`;
  return node;
}

function text(parent, x, y, words, attributes = {}) {
  return svg(parent, "text", { x, y, ...attributes }, shown(words));
}

// What a mouse shows when it rests there.
function hint(node, words) {
  svg(node, "title", {}, shown(words));
}

// Make a drawn part a button: mouse, Enter and space do the same.
function pressable(node, name, id, act) {
  fill(node, { role: "button", tabindex: 0, "aria-label": shown(name), "data-id": id }, []);
  node.addEventListener("click", act);
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(event); }
  });
  return node;
}

const PEN = document.createElement("canvas").getContext("2d");

function widthOf(words, font = "12px system-ui, 'DejaVu Sans', sans-serif") {
  PEN.font = font;
  return PEN.measureText(words).width;
}

// The beginning of a text that fits, with … where something is left out.
function fitted(words, room, font) {
  if (widthOf(words, font) <= room) return words;
  let end = words.length;
  while (end > 1 && widthOf(words.slice(0, end) + "…", font) > room) end -= 1;
  return words.slice(0, end) + "…";
}

// Words in lines that fit.
function lines(words, room, font) {
  const found = [""];
  for (const word of words.split(" ")) {
    const longer = found.at(-1) ? `${found.at(-1)} ${word}` : word;
    if (found.at(-1) && widthOf(longer, font) > room) found.push(word); else found[found.length - 1] = longer;
  }
  return found;
}

// A caption in as many lines as it needs; returns its height.
function caption(parent, x, y, words, room, attributes = { class: "quiet" }) {
  const found = lines(words, room, "13px system-ui, 'DejaVu Sans', sans-serif");
  found.forEach((line, at) => text(parent, x, y + 16 * at, line, attributes));
  return 16 * found.length;
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function mixed(from, to, share) {
  const [a, b] = [rgb(from), rgb(to)];
  return "#" + a.map((x, i) => Math.round(x + (b[i] - x) * share).toString(16).padStart(2, "0")).join("");
}

function brightness(hex) {
  const [red, green, blue] = rgb(hex).map((x) => (x / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// A colour that stands out from the page, however dark or light it is.
function ink(hex) {
  let found = hex;
  for (let share = 0.1; share < 1 && (dark() ? brightness(found) < 0.16 : brightness(found) > 0.6); share += 0.1)
    found = mixed(hex, dark() ? "#ffffff" : "#000000", share);
  return found;
}

function colour(arm) {
  return ink(DATA.arms[arm]?.colour ?? "#E69F00");
}

function theme(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function onto(hex) { // black or white, whichever is legible there
  return brightness(hex) > 0.3 ? "#1c1c1e" : "#ffffff";
}
