/**
 * Read how a photo is to be turned: EXIF's orientation, else XMP's, as Pillow reads them.
 * What is damaged turns nothing.
 */

const ORIENTATION = 0x0112;
const SHORT = 3;

/** Return 1 to 8. Either argument may be null: the EXIF block (a TIFF file) and the XMP packet. */
export function orientationOf(exif, xmp) {
  const found = exif && fromExif(exif);
  const turn = found ?? (xmp && fromXmp(xmp)) ?? 1;
  return turn >= 1 && turn <= 8 ? turn : 1;
}

function fromExif(bytes) {
  try {
    const block = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const little = block.getUint16(0) === 0x4949;
    const start = block.getUint32(4, little);
    const entries = block.getUint16(start, little);
    for (let entry = start + 2; entry < start + 2 + 12 * entries; entry += 12) {
      const isTurn = block.getUint16(entry, little) === ORIENTATION;
      if (isTurn && block.getUint16(entry + 2, little) === SHORT) {
        return block.getUint16(entry + 8, little);
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // an offset that points outside
  }
  return null;
}

function fromXmp(bytes) {
  const found = /tiff:Orientation(?:="|>)([0-9])/.exec(new TextDecoder("latin1").decode(bytes));
  return found && Number(found[1]);
}
