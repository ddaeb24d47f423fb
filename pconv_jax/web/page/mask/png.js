/**
 * Masks as PNG files of one bit per pixel, white where the photograph is filled. A canvas would write four bytes per
 * pixel, which takes a second for 12 megapixels.
 */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const STRIP = 1024; // Rows that are decoded at once, which limits the memory for large masks.

/**
 * Returns a part of a mask as a PNG file.
 *
 * @param {Mask} mask the mask.
 * @param {{x0: number, y0: number, x1: number, y1: number}} rect the part.
 * @returns {Promise<Blob>} the file.
 */
export async function encode(mask, rect) {
  const width = rect.x1 - rect.x0;
  const height = rect.y1 - rect.y0;
  const stride = 1 + Math.ceil(width / 8); // Each row starts with the number of its filter, 0.
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const source = (rect.y0 + y) * mask.width + rect.x0;
    const target = y * stride + 1;
    for (let x = 0; x < width; x++) {
      rows[target + (x >> 3)] |= mask.data[source + x] << (7 - (x & 7));
    }
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 1); // Bits per pixel; the zeros after it are grey, deflate, adaptive filters, not interlaced.
  const compressed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(compressed).arrayBuffer());
  const chunks = [chunk("IHDR", new Uint8Array(header.buffer)), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob([new Uint8Array(SIGNATURE), ...chunks], { type: "image/png" });
}

/** Returns the pixels of a mask from a PNG of grey values: 1 where it is brighter than half. */
export async function decode(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  const data = new Uint8Array(width * height);
  const canvas = new OffscreenCanvas(width, Math.min(STRIP, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let y = 0; y < height; y += STRIP) {
    const rows = Math.min(STRIP, height - y);
    context.drawImage(bitmap, 0, y, width, rows, 0, 0, width, rows);
    const pixels = context.getImageData(0, 0, width, rows).data;
    for (let i = 0; i < width * rows; i++) {
      data[y * width + i] = pixels[4 * i] > 127 ? 1 : 0;
    }
  }
  bitmap.close();
  return { data, width, height };
}

function chunk(type, data) {
  const bytes = new Uint8Array(12 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

const CRCS = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) {
    n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  }
  return n;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) {
    value = CRCS[(value ^ byte) & 0xff] ^ (value >>> 8);
  }
  return ~value >>> 0;
}
