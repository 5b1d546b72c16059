// The page: what is drawn goes to the chosen model, and its answer into the bars.

import { SIDE, toDigit } from "./digit.js";
import { Drawing } from "./drawing.js";
import { load } from "./recogniser.js";

// A screen reader is told of the answer when the drawing has rested.
const REST_MS = 700;

const [hint, sure, said, answer, bars, select, seen, facts, known] = [
  "hint", "sure", "said", "answer", "bars", "model", "seen", "facts", "known",
].map((id) => document.getElementById(id));
const drawing = new Drawing(document.getElementById("ink"), document.getElementById("nib"), changed);
const models = new Map();
const loaded = new Map();
let [isBusy, isStale, resting, classes, rows] = [false, false, 0, [], []];

/** What the chosen model makes of the drawing; null where nothing is drawn. Shows it, too. */
export async function recognise() {
  const pixels = toDigit(drawing.ink, drawing.canvas.width);
  const model = await chosen();
  const probabilities = pixels && (await model(pixels));
  show(pixels, probabilities);
  return pixels && { pixels, probabilities };
}

/** The model that is chosen, loaded once. */
function chosen() {
  const { name, file } = models.get(select.value);
  if (!loaded.has(name)) loaded.set(name, load(file));
  return loaded.get(name);
}

/** After each change. Where drawing is faster than the model, it goes on with the latest state. */
async function changed() {
  hint.parentElement.classList.add("drawn");
  isStale = true;
  if (isBusy) return;
  isBusy = true;
  try {
    while (isStale) {
      isStale = false;
      await new Promise(requestAnimationFrame);
      await recognise();
    }
  } catch (error) {
    fail(error);
  } finally {
    isBusy = false;
  }
}

function show(pixels, probabilities) {
  const values = probabilities ?? new Float32Array(classes.length);
  const first = probabilities ? values.indexOf(Math.max(...values)) : -1;
  rows.forEach(({ item, fill, percent }, at) => {
    item.classList.toggle("first", at === first);
    fill.style.setProperty("--probability", values[at].toFixed(4));
    percent.textContent = probabilities ? percents(values[at]) : "–";
  });
  answer.textContent = first < 0 ? "?" : classes[first];
  answer.classList.toggle("none", first < 0);
  sure.textContent = first < 0 ? "Nothing yet" : percents(values[first]);
  hint.parentElement.classList.toggle("drawn", pixels !== null);
  showSeen(pixels);
  clearTimeout(resting);
  resting = setTimeout(() => tell(first < 0 ? "Nothing drawn" : `${classes[first]}, ${percents(values[first])}`), REST_MS);
}

function showSeen(pixels) {
  const context = seen.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  pixels?.forEach((ink, at) => (image.data[4 * at + 3] = ink));
  context.putImageData(image, 0, 0);
}

function tell(text) {
  if (said.textContent !== text) said.textContent = text;
}

function percents(probability) {
  // Not 100: a network is never certain.
  return probability > 0.9995 ? "> 99.9 %" : `${(100 * probability).toFixed(1)} %`;
}

/** A bar of its own for each class. */
function row(name) {
  const item = document.createElement("li");
  const [label, track, fill, percent] = ["span", "div", "div", "span"].map((kind) => document.createElement(kind));
  [label.textContent, track.className, fill.className, percent.className] = [name, "track", "fill", "percent"];
  percent.textContent = "–";
  track.append(fill);
  item.append(label, track, percent);
  bars.append(item);
  return { item, fill, percent };
}

async function choose() {
  const model = models.get(select.value);
  known.textContent = model.images;
  // Those of another data set have other classes.
  if (String(classes) !== String(model.classes)) {
    classes = model.classes;
    bars.replaceChildren();
    rows = classes.map(row);
    answer.classList.toggle("word", classes.some((name) => name.length > 1));
  }
  facts.textContent = `${model.parameters} parameters, ${model.accuracy} on validation images`;
  await changed();
}

function fail(error) {
  console.error(error);
  sure.textContent = "It does not work here; the browser's console says why.";
  tell(sure.textContent);
}

async function start() {
  const { chosen: first, models: list } = await (await fetch("models.json")).json();
  for (const model of list) {
    models.set(model.name, model);
    select.append(new Option(model.name, model.name, false, model.name === first));
  }
  select.addEventListener("change", choose);
  document.getElementById("clear").addEventListener("click", () => drawing.clear());
  await choose();
}

/** Settled when the page can be used. */
export const ready = start().catch(fail);
