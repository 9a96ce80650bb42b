// `?tap=1` records what the page plays, sample by sample, as `window.parley.tap`: for tests and for the curious.

/** A tap for a Player: `node(context)` is its AudioNode, `samples()` all that passed, `events` what the player told. */
export class Tap {
  rate = 0;
  chunks = []; // {frame, time, samples}: Float32 samples, `frame` on the context's clock, `time` in seconds of it
  events = [];

  node = async (context) => {
    await context.audioWorklet.addModule(new URL("worklets/tap.js", import.meta.url));
    const node = new AudioWorkletNode(context, "tap", { outputChannelCount: [1] });
    this.rate = context.sampleRate;
    node.port.onmessage = ({ data: { frame, samples } }) => this.chunks.push({ frame, time: frame / this.rate, samples });
    return node;
  };

  samples() {
    const all = new Float32Array(this.chunks.reduce((sum, { samples }) => sum + samples.length, 0));
    let at = 0;
    for (const { samples } of this.chunks) {
      all.set(samples, at);
      at += samples.length;
    }
    return all;
  }

  clear() {
    this.chunks = [];
    this.events = [];
  }
}
