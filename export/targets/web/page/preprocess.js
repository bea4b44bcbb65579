/** Fit pixels to the classifier's input, as fedprompt/data/preprocess.py does, to the bit. */

import { resize } from "./resize.js";

const MAX_RESIZED_PIXELS = 64_000_000; // a strip beyond it is cut to its square first

/** Return size x size pixels; facts are those of classifier.json. */
export function fitToInput(pixels, facts) {
  const { size } = facts;
  const [width, height] = resizedTo(pixels, facts);
  if (width * height > MAX_RESIZED_PIXELS) return centreSquare(pixels, facts);
  const left = offset(width, size), top = offset(height, size);
  const window = [Math.max(left, 0), Math.max(top, 0), Math.min(left + size, width), Math.min(top + size, height)];
  const whole = [0, 0, pixels.width, pixels.height];
  const kept = resize(pixels, [width, height], facts.interpolation, whole, window);
  if (kept.width === size && kept.height === size) return kept;
  return pad(kept, Math.max(-left, 0), Math.max(-top, 0), facts);
}

function resizedTo({ width, height }, { size, resize_mode: mode }) {
  if (mode === "squash") return [size, size];
  if (mode === "longest") {
    const ratio = Math.max(height / size, width / size);
    return [Math.max(1, roundToEven(width / ratio)), Math.max(1, roundToEven(height / ratio))];
  }
  const long = Math.trunc((size * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [size, long] : [long, size];
}

function offset(length, size) {
  return length >= size ? roundToEven((length - size) / 2) : -Math.floor((size - length) / 2);
}

/** Round as Python's round() does: a half goes to the even neighbour. */
function roundToEven(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

function centreSquare(pixels, { size, interpolation }) {
  const side = Math.min(pixels.width, pixels.height);
  const left = (pixels.width - side) / 2, top = (pixels.height - side) / 2;
  const box = [left, top, left + side, top + side];
  return resize(pixels, [size, size], interpolation, box, [0, 0, size, size]);
}

function pad(pixels, left, top, { size, fill }) {
  const data = new Uint8ClampedArray(3 * size * size).fill(fill);
  for (let row = 0; row < pixels.height; row += 1) {
    const line = pixels.data.subarray(3 * row * pixels.width, 3 * (row + 1) * pixels.width);
    data.set(line, 3 * ((row + top) * size + left));
  }
  return { width: size, height: size, data };
}
