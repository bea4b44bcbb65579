/**
 * Turn a file into pixels by fedprompt's one decode rule (fedprompt/data/decode.py): first frame,
 * upright, transparency laid on white, colour profiles ignored.
 *
 * Pixels are {width, height, data}: data is RGB, one byte each, rows from the top.
 */

import { readContainer } from "./container.js";
import { PhotoError } from "./errors.js";

const MAX_BYTES = 256_000_000; // of a file; no photo of the largest size has more
const TILE = 2048; // pixels a side drawn at a time: a phone's canvas has a bound

/** Return the pixels of a File or Blob, or throw a PhotoError. */
export async function decode(file, maxPixels) {
  if (file.size === 0) throw new PhotoError("This file is empty. Choose another one.");
  if (file.size > MAX_BYTES) {
    const [found, most] = [file.size, MAX_BYTES].map(millions);
    throw new PhotoError(`This file has ${found} MB; ${most} MB at most can be read. Make it smaller.`);
  }
  const photo = readContainer(new Uint8Array(await file.arrayBuffer()));
  checkSize(photo, maxPixels);
  return upright(await plainPixels(photo), photo.orientation);
}

function checkSize({ width, height }, maxPixels) {
  if (width < 1 || height < 1) {
    throw new PhotoError(`This image is ${width} x ${height} pixels. Choose another one.`);
  }
  if (width * height <= maxPixels) return;
  throw new PhotoError(
    `This image is too large: ${width} x ${height} pixels, ${millions(maxPixels)} million at most ` +
      "can be read. Make it smaller.",
  );
}

async function plainPixels(photo) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([photo.bytes], { type: photo.type }));
  } catch {
    throw new PhotoError("This image could not be decoded: it is damaged. Choose another one.");
  }
  try {
    return readTiles(bitmap);
  } finally {
    bitmap.close();
  }
}

function readTiles(bitmap) {
  const { width, height } = bitmap;
  const pixels = { width, height, data: new Uint8Array(3 * width * height) };
  const side = (length) => Math.min(length, TILE);
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: side(width), height: side(height) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  for (let top = 0; top < height; top += TILE) {
    for (let left = 0; left < width; left += TILE) {
      context.fillRect(0, 0, TILE, TILE);
      context.drawImage(bitmap, -left, -top);
      const tile = context.getImageData(0, 0, side(width - left), side(height - top));
      copyTile(tile, pixels, left, top);
    }
  }
  return pixels;
}

function copyTile(tile, { width, data }, left, top) {
  let from = 0;
  for (let row = 0; row < tile.height; row += 1) {
    let to = 3 * ((top + row) * width + left);
    for (let column = 0; column < tile.width; column += 1, from += 4) {
      data[to++] = tile.data[from];
      data[to++] = tile.data[from + 1];
      data[to++] = tile.data[from + 2];
    }
  }
}

/** Return pixels turned by EXIF's orientation: 5 to 8 lie on their side. */
function upright(pixels, orientation) {
  if (orientation === 1) return pixels;
  const { width, height, data } = pixels;
  const [across, down] = orientation > 4 ? [height, width] : [width, height];
  const turned = new Uint8Array(data.length);
  for (let y = 0, to = 0; y < down; y += 1) {
    for (let x = 0; x < across; x += 1) {
      const [left, top] = source(orientation, x, y, width - 1, height - 1);
      const from = 3 * (top * width + left);
      turned[to++] = data[from];
      turned[to++] = data[from + 1];
      turned[to++] = data[from + 2];
    }
  }
  return { width: across, height: down, data: turned };
}

/** Return where in the stored image the upright pixel (x, y) lies. */
function source(orientation, x, y, right, bottom) {
  switch (orientation) {
    case 2: return [right - x, y];
    case 3: return [right - x, bottom - y];
    case 4: return [x, bottom - y];
    case 5: return [y, x];
    case 6: return [y, bottom - x];
    case 7: return [right - y, bottom - x];
    default: return [right - y, x];
  }
}

const millions = (count) => Math.round(count / 1e6);
