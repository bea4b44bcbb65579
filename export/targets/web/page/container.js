/**
 * Read a photo's format, size and orientation, and take out of the file what is no pixel.
 *
 * Without colour profile and EXIF every browser decodes the same pixels, unturned; Python ignores
 * profiles too. The size is known before anything is decoded, so that a bomb is refused.
 */

import { PhotoError } from "./errors.js";
import { orientationOf } from "./orientation.js";

const PNG_START = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const PNG_PIXELS = ["IHDR", "PLTE", "tRNS", "IDAT", "IEND"]; // of an animation, the still image
const XMP_PNG = "XML:com.adobe.xmp\0\0\0"; // not compressed
const XMP_JPEG = "http://ns.adobe.com/xap/1.0/\0";

/** Return {type, width, height, orientation, bytes} of an encoded photo. */
export function readContainer(bytes) {
  const read = FORMATS.find(([isIt]) => isIt(bytes))?.[1];
  if (!read) {
    throw new PhotoError("This file is no JPEG, PNG, WebP, GIF or BMP image. Choose another one.");
  }
  try {
    return { orientation: 1, bytes, ...read(bytes, viewOf(bytes)) };
  } catch (error) {
    if (error instanceof RangeError) throw cutOff(); // a length that points outside
    throw error;
  }
}

const FORMATS = [
  [(bytes) => startsWith(bytes, [0xff, 0xd8, 0xff]), readJpeg],
  [(bytes) => startsWith(bytes, PNG_START), readPng],
  [(bytes) => text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP", readWebp],
  [(bytes) => /^GIF8[79]a/.test(text(bytes, 0, 6)), readGif],
  [(bytes) => text(bytes, 0, 2) === "BM", readBmp],
];

function readJpeg(bytes, view) {
  const kept = [bytes.subarray(0, 2)];
  let size = null, exif = null, xmp = null, at = 2;
  for (;;) {
    while (view.getUint8(at) === 0xff && view.getUint8(at + 1) === 0xff) at += 1; // fill bytes
    const marker = view.getUint16(at);
    const end = at + 2 + view.getUint16(at + 2);
    if (marker === 0xffda) break; // the scans: nothing is taken out from here on
    const part = slice(bytes, at, end);
    if (isFrame(marker)) size = { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    if (marker === 0xffe1 && text(part, 4, 6) === "Exif\0\0") exif ??= part.subarray(10);
    if (marker === 0xffe1 && text(part, 4, XMP_JPEG.length) === XMP_JPEG) xmp ??= part.subarray(4);
    if (!isApplication(marker)) kept.push(part);
    at = end;
  }
  const scans = bytes.subarray(at);
  if (!size || !hasEndOfImage(scans)) throw cutOff();
  const orientation = orientationOf(exif, xmp);
  return { type: "image/jpeg", ...size, orientation, bytes: join([...kept, scans]) };
}

const isFrame = (marker) =>
  marker >= 0xffc0 && marker <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(marker);

/** Say whether a segment is no part of the image; JFIF's and Adobe's tell how colours are stored. */
const isApplication = (marker) =>
  (marker > 0xffe0 && marker <= 0xffef && marker !== 0xffee) || marker === 0xfffe;

function hasEndOfImage(bytes) {
  for (let at = bytes.length - 2; at >= 0; at -= 1) {
    if (bytes[at] === 0xff && bytes[at + 1] === 0xd9) return true;
  }
  return false;
}

function readPng(bytes, view) {
  const kept = [bytes.subarray(0, 8)];
  let exif = null, xmp = null, name = "";
  for (let at = 8; name !== "IEND"; ) {
    const end = at + 12 + view.getUint32(at);
    name = text(bytes, at + 4, 4);
    const part = slice(bytes, at, end);
    if (PNG_PIXELS.includes(name)) kept.push(part);
    if (name === "eXIf") exif = part.subarray(8, -4);
    if (name === "iTXt" && text(part, 8, XMP_PNG.length) === XMP_PNG) xmp = part.subarray(8);
    at = end;
  }
  const size = { width: view.getUint32(16), height: view.getUint32(20) };
  return { type: "image/png", ...size, orientation: orientationOf(exif, xmp), bytes: join(kept) };
}

function readWebp(bytes, view) {
  const whole = slice(bytes, 0, view.getUint32(4, true) + 8);
  const plain = whole.slice();
  let size = null, exif = null, xmp = null;
  for (let at = 12; at + 8 <= whole.length; ) {
    const name = text(whole, at, 4), body = at + 8;
    const end = body + view.getUint32(at + 4, true);
    const part = slice(whole, body, end);
    size ??= webpSize(name, body, view);
    if (name === "VP8X") plain[body] &= ~0x2c; // its flags for what goes: profile, EXIF, XMP
    if (name === "EXIF") exif = text(part, 0, 6) === "Exif\0\0" ? part.subarray(6) : part;
    if (name === "XMP ") xmp = part;
    if (["EXIF", "XMP ", "ICCP"].includes(name)) plain.fill(0x5f, at, at + 4); // unknown: skipped
    at = end + (end % 2);
  }
  if (!size) throw cutOff();
  return { type: "image/webp", ...size, orientation: orientationOf(exif, xmp), bytes: plain };
}

function webpSize(name, at, view) {
  const bits = (offset, shift, mask) => (view.getUint32(at + offset, true) >>> shift) & mask;
  switch (name) {
    case "VP8X": return { width: bits(4, 0, 0xffffff) + 1, height: bits(6, 8, 0xffffff) + 1 };
    case "VP8L": return { width: bits(1, 0, 0x3fff) + 1, height: bits(1, 14, 0x3fff) + 1 };
    case "VP8 ": return { width: bits(6, 0, 0x3fff), height: bits(6, 16, 0x3fff) };
    default: return null;
  }
}

function readGif(bytes, view) {
  return { type: "image/gif", width: view.getUint16(6, true), height: view.getUint16(8, true) };
}

function readBmp(bytes, view) {
  const old = view.getUint32(14, true) === 12;
  const width = old ? view.getUint16(18, true) : view.getInt32(18, true);
  const height = old ? view.getUint16(20, true) : Math.abs(view.getInt32(22, true));
  return { type: "image/bmp", width, height };
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

const startsWith = (bytes, start) => start.every((value, index) => bytes[index] === value);

function text(bytes, at, length) {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

function slice(bytes, begin, end) {
  if (end > bytes.length) throw cutOff();
  return bytes.subarray(begin, end);
}

function join(parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function cutOff() {
  return new PhotoError("This image is damaged or cut off. Choose another one, or copy it again.");
}
