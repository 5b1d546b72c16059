// Drawings brought to the form of MNIST's digits, as mnist_cnn.inference.digits brings files to it. A test compares them.
// What a drawing cannot have is left out: paper, dirt, and, unless it is larger than most, strokes too thin for MNIST.
// Source: "The MNIST database of handwritten digits", LeCun, Cortes, Burges, 1998.

export const SIDE = 28;
// The longer side of a digit without its margins.
const BOX = 20;
// The pixel, counted from 0, nearest to which the centre of mass lies, in every digit of MNIST.
const CENTRE = 14;

/**
 * A digit of 28 x 28 pixels, 0 (background) to 255; null where there is no ink.
 *
 * The ink is scaled until its longer side has 20 pixels, each the average of what it covers, and moved by whole pixels
 * until its centre of mass is in the middle.
 *
 * @param {Uint8ClampedArray} ink 0 to 255, row by row
 * @param {number} width of the drawing, in pixels
 * @returns {Uint8Array | null}
 */
export function toDigit(ink, width) {
  const box = boundsOf(ink, width);
  if (!box) return null;
  const longer = Math.max(box.width, box.height);
  const columns = Math.max(1, Math.round((box.width * BOX) / longer));
  const rows = Math.max(1, Math.round((box.height * BOX) / longer));
  const small = averaged(ink, width, box, columns, rows);

  const [x, y] = centreOfMass(small, columns);
  const left = clamp(Math.round(CENTRE - x), 0, SIDE - columns);
  const top = clamp(Math.round(CENTRE - y), 0, SIDE - rows);
  const digit = new Uint8Array(SIDE * SIDE);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      digit[(top + row) * SIDE + left + column] = Math.round(small[row * columns + column]);
    }
  }
  return digit;
}

/** The smallest rectangle that holds all ink. */
function boundsOf(ink, width) {
  const height = ink.length / width;
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!ink[y * width + x]) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** The ink in a rectangle as columns x rows averages, of whole pixels and parts of them. */
function averaged(ink, width, box, columns, rows) {
  const across = sharesOf(box.left, box.width, columns);
  const down = sharesOf(box.top, box.height, rows);
  const small = new Float64Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (const [y, height] of down[row]) {
        for (const [x, share] of across[column]) sum += ink[y * width + x] * share * height;
      }
      small[row * columns + column] = sum;
    }
  }
  return small;
}

/** For each of `count` equal parts of a stretch, the pixels that it covers, with their shares; those add up to 1. */
function sharesOf(start, length, count) {
  const size = length / count;
  return Array.from({ length: count }, (_, part) => {
    const [from, to] = [part * size, (part + 1) * size];
    const shares = [];
    for (let pixel = Math.floor(from); pixel < Math.min(length, to); pixel++) {
      const covered = Math.min(to, pixel + 1) - Math.max(from, pixel);
      if (covered > 1e-9) shares.push([start + pixel, covered / size]);
    }
    return shares;
  });
}

function centreOfMass(image, width) {
  let [total, x, y] = [0, 0, 0];
  image.forEach((ink, at) => {
    total += ink;
    x += ink * (at % width);
    y += ink * Math.floor(at / width);
  });
  return [x / total, y / total];
}

function clamp(value, least, most) {
  return Math.min(most, Math.max(least, value));
}
