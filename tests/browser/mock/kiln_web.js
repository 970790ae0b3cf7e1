// Replaces the wasm package in tests that need what the real one never does on purpose: a trap, an unsure answer, class
// names that look like HTML. It has the same interface; its answers depend only on the picture's mean color. The test
// server prepends `const MOCK = {..}`.

export default async function init({ module_or_path: response }) {
  await response.arrayBuffer();
  return { memory: new WebAssembly.Memory({ initial: 16 }) };
}

export class Classifier {
  static async load(bundle, backend, progress) {
    const headerBytes = Number(new DataView(bundle.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bundle.subarray(8, 8 + headerBytes)));
    progress("read", 1);
    if (MOCK.trap === "load") throw new WebAssembly.RuntimeError("unreachable");
    const classifier = new Classifier();
    classifier.metadata = { ...JSON.parse(header.__metadata__.kiln).contents, ...MOCK.metadata };
    classifier.classes = classifier.metadata.classes;
    await classifier.setBackend(backend);
    progress("prepare", 1);
    return classifier;
  }

  async setBackend(backend) {
    this.backend = backend === "cpu" ? "cpu" : "webgpu";
    this.device = this.backend === "cpu" ? "CPU, WebAssembly SIMD, 1 thread" : "Mock GPU";
    this.reason = { auto: "WebGPU runs on a hardware GPU here", webgpu: "WebGPU was selected", cpu: "the CPU was selected" }[backend];
  }

  async warmUp() {
    return { decode: 0.1, upload: 0.3, compute: 41.2, readBack: 0.4, total: 42 };
  }

  async classify(file) {
    const bitmap = await createImageBitmap(new Blob([file])).catch(() => {
      throw new Error("not an image of a known format");
    });
    const context = new OffscreenCanvas(32, 32).getContext("2d");
    context.drawImage(bitmap, 0, 0, 32, 32);
    return this.answer(new Uint8Array(context.getImageData(0, 0, 32, 32).data));
  }

  async classifyPixels(rgba, width) {
    const input = new Uint8Array(32 * 32 * 4);
    for (let i = 0; i < input.length; i += 1) input[i] = rgba[((i >> 7) * width * 4 * (width >> 5)) + (i & 127)];
    return this.answer(input);
  }

  answer(input) {
    if (MOCK.trap === "second" && this.answered) throw new WebAssembly.RuntimeError("unreachable");
    this.answered = true;
    const mean = input.reduce((a, b) => a + b, 0) / input.length;
    const logits = Float32Array.from(this.classes, (_, i) => MOCK.certainty * Math.sin(mean / 7 + i));
    const exponentials = logits.map(Math.exp);
    const sum = exponentials.reduce((a, b) => a + b, 0);
    return {
      logits,
      probabilities: exponentials.map((value) => value / sum),
      features: new Float32Array(128),
      activation: Float32Array.from({ length: 16 }, (_, i) => Math.cos(i / 3 + mean)),
      activationHeight: 4,
      activationWidth: 4,
      input,
      inputSize: 32,
      timings: { decode: 1.2, upload: 0.2, compute: 6.4, readBack: 0.3, total: 8.1 },
    };
  }

  classActivation(classIndex) {
    return Float32Array.from({ length: 16 }, (_, i) => Math.sin(i / 2 + classIndex));
  }

  destroyDevice() {}
  free() {}
}
