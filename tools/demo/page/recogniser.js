// The exported models, run by ONNX Runtime as WebAssembly.

import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

import { SIDE } from "./digit.js";

// More threads need workers, and a model is done in a few milliseconds.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", import.meta.url).href };

/**
 * A model as a function from a digit, 28 x 28 pixels, to ten probabilities.
 *
 * @param {string} file its address
 * @returns {Promise<(digit: Uint8Array) => Promise<Float32Array>>}
 */
export async function load(file) {
  const answer = await fetch(file);
  if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
  const session = await ort.InferenceSession.create(await answer.arrayBuffer(), { executionProviders: ["wasm"] });
  return async (digit) => {
    const { probabilities } = await session.run({ pixels: new ort.Tensor("uint8", digit, [1, SIDE, SIDE]) });
    return probabilities.data;
  };
}
