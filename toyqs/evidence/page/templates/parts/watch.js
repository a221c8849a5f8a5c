// A page that is written again while it is open takes the new data without being loaded anew: a hidden frame loads the
// file, says by its first script which data it holds, and where they are others, hands them over.

const LOOK = "toyqs-look"; // what the frame is called
let looking = null; // the frame, while it is there
let looks = 0;

function packedData() {
  return Object.fromEntries([...document.querySelectorAll('script[type="text/plain"]')].map((node) => [node.id, node.textContent]));
}

function lookAgain() {
  looking?.remove();
  looks += 1;
  looking = html("iframe", { hidden: true, name: LOOK, src: `${location.href.split("#")[0].split("?")[0]}?${looks}` });
  document.body.append(looking);
}

function endLook() {
  looking?.remove();
  looking = null;
}

async function onMessage({ source, data }) {
  if (!looking || source !== looking.contentWindow) return;
  if (data.stamp === document.documentElement.dataset.stamp) endLook(); // nothing is new: the rest is not loaded
  if (!data.texts) return;
  endLook();
  for (const node of document.querySelectorAll('script[type="text/plain"]')) node.remove();
  for (const [id, words] of Object.entries(data.texts)) document.body.append(html("script", { type: "text/plain", id }, words));
  RECORDS.clear();
  await readAll();
  redraw();
  document.documentElement.dataset.stamp = data.wholeStamp;
}

if (self.name === LOOK) parent.postMessage({ texts: packedData(), wholeStamp: document.documentElement.dataset.stamp }, "*");
else addEventListener("message", onMessage);
