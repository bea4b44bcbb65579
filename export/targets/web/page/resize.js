/**
 * Resample as Pillow 13 does, to the bit: weights as 22-bit fixed point, bytes between the pass
 * along the rows and the pass along the columns, and its choice of which comes first.
 */

const PRECISION = 22; // bits of a weight
const ONE = 2 ** PRECISION;
const HALF = ONE / 2;

const FILTERS = {
  bilinear: { support: 1, kernel: (x) => (x < 1 ? 1 - x : 0) },
  bicubic: { support: 2, kernel: cubic },
};

/** Keys' kernel with a = -0.5, for x >= 0. */
function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/**
 * Return part of an image resized to size [width, height].
 *
 * box is what of the source is resized, [left, top, right, bottom], fractions allowed; window is
 * what of the result is returned, in whole pixels: nothing else is computed.
 */
export function resize(pixels, size, interpolation, box, window) {
  const filter = FILTERS[interpolation];
  const axes = [0, 1].map((axis) => {
    const length = axis ? pixels.height : pixels.width;
    const [from, to] = [box[axis], box[axis + 2]];
    const whole = from === 0 && to === length && size[axis] === length;
    return taps(whole ? null : filter, length, from, to, size[axis], window[axis], window[axis + 2]);
  });
  const [columns, rows] = axes;
  const source = { ...pixels, left: 0, top: 0 };
  if (isColumnsFirst(pixels, size)) {
    return alongRows(alongColumns(source, rows, span(columns)), columns, [0, rows.length]);
  }
  return alongColumns(alongRows(source, columns, span(rows)), rows, [0, columns.length]);
}

/** Say whether the height loses more than twice what the width does. */
function isColumnsFirst(pixels, [width, height]) {
  const lost = pixels.height - height;
  return lost > 0 && lost > 2 * (pixels.width - width);
}

/** Return the first source pixel that any tap reads, and the one behind the last. */
function span(taps) {
  const ends = taps.map(({ at, weights }) => at + (weights?.length ?? 1));
  return [Math.min(...taps.map(({ at }) => at)), Math.max(...ends)];
}

/** Return, for each pixel of the result, where its source pixels begin and what they weigh. */
function taps(filter, length, from, to, size, first, last) {
  const found = [];
  for (let place = first; place < last; place += 1) {
    found.push(filter ? tap(filter, length, from, (to - from) / size, place) : { at: place, weights: null });
  }
  return found;
}

function tap(filter, length, from, scale, place) {
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const centre = from + (place + 0.5) * scale;
  const at = Math.max(0, Math.trunc(centre - support + 0.5));
  const end = Math.min(length, Math.trunc(centre + support + 0.5));
  const exact = [];
  let sum = 0;
  for (let index = at; index < end; index += 1) {
    const weight = filter.kernel(Math.abs((index - centre + 0.5) * (1 / stretch)));
    exact.push(weight);
    sum += weight;
  }
  const weights = exact.map((weight) => fixed(sum === 0 ? weight : weight / sum));
  return { at, weights: Int32Array.from(weights) };
}

const fixed = (weight) => Math.trunc(weight * ONE + (weight < 0 ? -0.5 : 0.5));

/** Resample the rows begin to end; left and top are where in the image the data begins. */
function alongRows({ left, top, width, data }, columns, [begin, end]) {
  const made = new Uint8ClampedArray(3 * columns.length * (end - begin));
  let to = 0;
  for (let row = begin; row < end; row += 1) {
    for (const { at, weights } of columns) {
      weigh(data, 3 * ((row - top) * width + at - left), 3, weights, made, to);
      to += 3;
    }
  }
  return { left: 0, top: begin, width: columns.length, height: end - begin, data: made };
}

/** Resample the columns begin to end. */
function alongColumns({ left, top, width, data }, rows, [begin, end]) {
  const made = new Uint8ClampedArray(3 * (end - begin) * rows.length);
  let to = 0;
  for (const { at, weights } of rows) {
    for (let column = begin; column < end; column += 1) {
      weigh(data, 3 * ((at - top) * width + column - left), 3 * width, weights, made, to);
      to += 3;
    }
  }
  return { left: begin, top: 0, width: end - begin, height: rows.length, data: made };
}

/** Write one weighted pixel; the array it is written to clamps to a byte. */
function weigh(data, from, step, weights, made, to) {
  if (weights === null) {
    for (let channel = 0; channel < 3; channel += 1) made[to + channel] = data[from + channel];
    return;
  }
  let red = HALF, green = HALF, blue = HALF;
  for (let index = 0; index < weights.length; index += 1, from += step) {
    const weight = weights[index];
    red += weight * data[from];
    green += weight * data[from + 1];
    blue += weight * data[from + 2];
  }
  made[to] = Math.floor(red / ONE);
  made[to + 1] = Math.floor(green / ONE);
  made[to + 2] = Math.floor(blue / ONE);
}
