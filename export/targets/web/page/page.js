/** Wire the page: a photo comes in by dropping, choosing or pasting; classes come out. */

import { openClassifier } from "./classifier.js";
import { decode } from "./decode.js";
import { PhotoError } from "./errors.js";
import { fitToInput } from "./preprocess.js";
import { showAnswer } from "./answer.js";

const $ = (id) => document.getElementById(id);

let classifier = null;
let newest = 0; // of the photos; the answer to an older one is not shown

async function start() {
  listen(); // at once: else a photo dropped early would make the browser leave the page
  say("Loading the classifier …");
  classifier = await openClassifier((done) => {
    $("progress").value = done;
    if (done === 1) say("Starting the classifier …");
  });
  $("progress").hidden = true;
  $("photo").disabled = false;
  $("drop").classList.remove("off");
  const { classes, backbone, version } = classifier.facts;
  $("facts").textContent = `${classes.length} classes · ${backbone} · ${classifier.runtime} · fedprompt ${version}`;
  say("Ready.");
}

function listen() {
  $("photo").addEventListener("change", () => take([...$("photo").files]));
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  document.addEventListener("dragover", (event) => mark(event, true));
  document.addEventListener("dragleave", (event) => mark(event, event.relatedTarget !== null));
  document.addEventListener("drop", (event) => {
    mark(event, false);
    take([...event.dataTransfer.files]);
  });
}

function mark(event, over) {
  event.preventDefault(); // else the browser would leave the page for the file
  $("drop").classList.toggle("over", over);
}

async function take([file]) {
  if (!file || !classifier) return;
  const turn = ++newest;
  $("photo").value = ""; // so that the same file can be chosen again
  $("error").hidden = true;
  say("Reading the photo …");
  await nextFrame();
  try {
    const begin = performance.now();
    const pixels = fitToInput(await decode(file, classifier.facts.max_pixels), classifier.facts);
    const shares = await classifier.probabilities(pixels);
    if (turn !== newest) return;
    const seconds = ((performance.now() - begin) / 1000).toFixed(2);
    say(`Classified in ${seconds} s.`, showAnswer(file, classifier.facts.classes, shares));
  } catch (error) {
    if (turn === newest) fail(error);
  }
}

/** Let the browser paint what was just said, for what follows keeps it busy. */
const nextFrame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

/** Say something; what is only spoken stands written elsewhere on the page. */
function say(text, spoken = "") {
  $("spoken").textContent = spoken;
  $("said").textContent = text;
}

function fail(error) {
  $("result").hidden = true;
  $("error").hidden = false;
  $("error").textContent =
    error instanceof PhotoError ? error.message : "Something went wrong. Reload the page and try again.";
  if (!(error instanceof PhotoError)) console.error(error);
  say("");
}

start().catch((error) => {
  $("progress").hidden = true;
  fail(error);
});
