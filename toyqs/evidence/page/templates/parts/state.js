// What the reader chose, kept in the URL's hash: a link to it shows the same.

const CHOICES = ["cell", "control", "over", "show", "axis", "down", "hide", "run", "beside", "time", "sequence", "position",
  "word", "theme"];
const state = Object.fromEntries(CHOICES.map((name) => [name, ""])); // "": the page's own choice

function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  const changed = [];
  for (const name of CHOICES) {
    const value = given.get(name) ?? "";
    if (state[name] !== value) { state[name] = value; changed.push(name); }
  }
  return changed;
}

function choose(changes) {
  const changed = Object.keys(changes).filter((name) => state[name] !== String(changes[name]));
  if (!changed.length) return;
  for (const name of changed) state[name] = String(changes[name]);
  const kept = new URLSearchParams(CHOICES.filter((name) => state[name] !== "").map((name) => [name, state[name]]));
  history.replaceState(null, "", `${location.pathname}${location.search}#${kept}`);
  redraw(changed);
}

function dark() {
  if (state.theme) return state.theme === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
