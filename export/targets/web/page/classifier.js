/**
 * Run the classifier by ONNX Runtime: WebGPU where it answers as torch did, else WebAssembly.
 *
 * A runtime is used only if it gives torch's answer to the stored probe: a graphics driver that
 * computes something else is noticed before the first photo. One thread, because more need headers
 * that a plain web server does not send.
 */

import { PhotoError } from "./errors.js";

const TOLERANCE = 1e-2; // of a probability
const RUNTIMES = [
  { name: "WebGPU", file: "webgpu", provider: "webgpu", isHere: hasGraphics },
  { name: "WebAssembly", file: "wasm", provider: "wasm", isHere: async () => true },
];

/**
 * Return a Classifier. tell(done) hears how much of the graph has come, from 0 to 1; `only` names
 * the one runtime to use.
 */
export async function openClassifier(tell, only = null) {
  const facts = await (await get("classifier.json")).json();
  const [model, probe] = await Promise.all([download(facts.model, tell), pixelsOfProbe(facts)]);
  const chosen = RUNTIMES.filter(({ name }) => only === null || name === only);
  const classifier = new Classifier(facts, model, probe, chosen);
  await classifier.start();
  return classifier;
}

class Classifier {
  #model;
  #probe;
  #left;
  #session;
  #before = Promise.resolve(); // settled when the photos before are through

  constructor(facts, model, probe, runtimes) {
    this.facts = facts;
    this.runtime = null;
    this.#model = model;
    this.#probe = probe;
    this.#left = runtimes;
  }

  /** Take the first of the runtimes left that works. */
  async start() {
    while (this.#left.length) {
      const runtime = this.#left.shift();
      try {
        if (!(await runtime.isHere())) continue;
        this.#session = await openSession(runtime, this.#model);
        this.#check(await this.#run(this.#probe));
        this.runtime = runtime.name;
        return;
      } catch (error) {
        console.warn(`${runtime.name} does not work here:`, error);
      }
    }
    throw new PhotoError("The classifier does not run in this browser. Try a newer one, or another.");
  }

  /**
   * Return probabilities in the order of facts.classes. One photo at a time: WebGPU's runtime hangs
   * for good when it is asked while it computes.
   */
  probabilities(pixels) {
    const mine = this.#before.then(() => this.#compute(pixels));
    this.#before = mine.catch(() => {});
    return mine;
  }

  /** Compute; a runtime that fails is replaced. */
  async #compute(pixels) {
    try {
      return softmax(await this.#run(pixels));
    } catch (error) {
      console.warn(`${this.runtime} failed:`, error);
      await this.start();
      return softmax(await this.#run(pixels));
    }
  }

  async #run({ data }) {
    const { size } = this.facts;
    const images = new this.#session.Tensor("uint8", new Uint8Array(data), [1, size, size, 3]);
    const answer = await this.#session.run({ images });
    return answer.logits.data;
  }

  #check(logits) {
    const expected = softmax(this.facts.probe_logits);
    const found = softmax(logits);
    const largest = Math.max(...expected.map((value, index) => Math.abs(value - found[index])));
    if (!(largest <= TOLERANCE)) throw new Error(`a probability differs from torch's by ${largest}`);
  }
}

async function openSession({ file, provider }, model) {
  const ort = await import(`./runtime/${file}.js`);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { wasm: new URL(`./runtime/${file}.wasm`, import.meta.url).href };
  const options = { executionProviders: [provider], logSeverityLevel: 3 }; // errors only
  const session = await ort.InferenceSession.create(model, options);
  return { Tensor: ort.Tensor, run: (feeds) => session.run(feeds, ["logits"]) };
}

async function hasGraphics() {
  return Boolean(await navigator.gpu?.requestAdapter());
}

export function softmax(logits) {
  const largest = logits.reduce((high, value) => Math.max(high, value), -Infinity);
  const shares = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = shares.reduce((total, share) => total + share, 0);
  return shares.map((share) => share / sum);
}

async function download({ bytes, sha256 }, tell) {
  const answer = await get("classifier.onnx");
  const model = new Uint8Array(bytes);
  let come = 0;
  const reader = answer.body.getReader();
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    if (come + piece.value.length > bytes) throw mixed();
    model.set(piece.value, come);
    come += piece.value.length;
    tell(come / bytes);
  }
  if (come !== bytes || !(await isSound(model, sha256))) throw mixed();
  return model;
}

/** Compare a hash; where the page is not served securely the browser has none, and size must do. */
async function isSound(model, sha256) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === sha256;
}

async function pixelsOfProbe({ size }) {
  const data = new Uint8Array(await (await get("probe.bin")).arrayBuffer());
  if (data.length !== 3 * size * size) throw mixed();
  return { width: size, height: size, data };
}

async function get(name) {
  let answer = null;
  try {
    answer = await fetch(new URL(name, import.meta.url), { cache: "no-cache" });
  } catch {
    // said below
  }
  if (!answer?.ok) throw new PhotoError(`${name} could not be loaded. Check the connection, then reload.`);
  return answer;
}

function mixed() {
  return new PhotoError("The page's files do not belong together. Copy the whole folder again.");
}
