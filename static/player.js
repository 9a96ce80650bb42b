// The speaker: PCM of the reply last announced goes to the playback worklet; how much has sounded comes back.

const MOST_PENDING_S = 60; // of audio that waits for the user's first click; more is dropped
const ACK_MS = 60; // how often, in audio, the server is told how much has sounded
const ANSWER_MS = 150; // a worklet that is suspended does not answer: go on with the last position known

export class Player {
  #on;
  #context = null;
  #node = null;
  #gain = null;
  #analyser = null;
  #wave = new Float32Array(512);
  #pending = [];
  #pendingSamples = 0;
  #reply = -1; // the reply whose frames are let in
  #dropped = -1; // the newest reply whose frames are let in no more
  #acknowledged = 0;
  #flushed = null;
  #position = { reply: null, ms: 0 };
  #volume = 1;
  #sink = "";
  tap = null; // (context) => AudioNode: what listens in between the player and the speaker

  /** `on(event)`: {type: started, position, paused, resumed, dry, underrun, finished, flushed; reply, ms}, and {type: "playback", reply, ms}
   * whenever the server should be told. */
  constructor(on) {
    this.#on = on;
  }

  /** Whether this browser plays anything on this page: it takes a secure one. */
  static get possible() {
    return Boolean(window.AudioWorkletNode);
  }

  get rate() {
    return this.#context?.sampleRate ?? null;
  }

  /** Open the speaker at `rate` Hz; needs a user's gesture. What was pushed before is played then. */
  async open(rate) {
    if (!Player.possible) throw new DOMException("", "NotSupportedError");
    const old = this.#context;
    this.#node = null;
    const context = (this.#context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" }));
    old?.close();
    context.resume();
    await context.audioWorklet.addModule(new URL("worklets/playback.js", import.meta.url));
    if (this.#context !== context) return; // a newer rate overtook this one
    const node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    node.port.onmessage = ({ data }) => this.#told(data);
    this.#gain = new GainNode(context, { gain: this.#volume });
    this.#analyser = new AnalyserNode(context, { fftSize: 512 });
    const tap = this.tap ? await this.tap(context) : null;
    const chain = [node, tap, this.#gain, this.#analyser, context.destination].filter(Boolean);
    chain.reduce((from, to) => from.connect(to));
    if (this.#sink) await this.setSink(this.#sink);
    this.#node = node;
    for (const [message, transfer] of this.#pending.splice(0)) node.port.postMessage(message, transfer);
    this.#pendingSamples = 0;
  }

  /** The server is about to send frames of `reply`. */
  announce(reply, rate) {
    if (reply <= this.#dropped) return;
    this.#reply = reply;
    this.#acknowledged = -ACK_MS; // the first sound is told at once
    if (this.#context && this.#context.sampleRate !== rate) this.open(rate);
  }

  /** A frame of PCM, s16le; one of a reply that was flushed or never announced is not played. */
  push(buffer) {
    if (this.#reply <= this.#dropped) return;
    const pcm = new Int16Array(buffer, 0, buffer.byteLength >> 1);
    const samples = Float32Array.from(pcm, (sample) => sample / 32768);
    this.#post({ type: "push", reply: this.#reply, samples }, [samples.buffer]);
  }

  end(reply) {
    if (reply > this.#dropped) this.#post({ type: "end", reply });
  }

  pause() {
    this.#post({ type: "pause" });
  }

  resume() {
    this.#post({ type: "resume" });
  }

  /** Silence within a render quantum, for `reply` and all before it; resolves to how far it got: {reply, ms}. */
  async flush(reply = -1) {
    this.#dropped = Math.max(this.#dropped, this.#reply, reply);
    if (!this.#node) this.#pending = [];
    if (!this.#node) return this.#position;
    const answer = new Promise((resolve) => (this.#flushed = resolve));
    this.#post({ type: "flush" });
    const late = new Promise((resolve) => setTimeout(() => resolve(this.#position), ANSWER_MS));
    return Promise.race([answer, late]);
  }

  /** Forget which replies were dropped: a new session counts them from the beginning. */
  reset() {
    this.flush();
    this.#reply = this.#dropped = -1;
  }

  /** How loud it is right now, 0..1: for the eye. */
  level() {
    if (!this.#analyser) return 0;
    this.#analyser.getFloatTimeDomainData(this.#wave);
    return Math.min(1, 3 * Math.sqrt(this.#wave.reduce((sum, each) => sum + each * each, 0) / this.#wave.length));
  }

  setVolume(volume) {
    this.#volume = volume;
    this.#gain?.gain.setTargetAtTime(volume, this.#context.currentTime, 0.02);
  }

  /** Which device it sounds from; false where the browser cannot choose. */
  async setSink(id) {
    this.#sink = id;
    if (!this.#context?.setSinkId) return false;
    return this.#context.setSinkId(id === "default" ? "" : id).then(() => true, () => false);
  }

  /** Wake a context that the browser has suspended; needs a user's gesture. */
  wake() {
    if (this.#context?.state === "suspended" || this.#context?.state === "interrupted") this.#context.resume();
  }

  close() {
    this.#context?.close();
    this.#context = this.#node = null;
  }

  #post(message, transfer = []) {
    if (this.#node) return this.#node.port.postMessage(message, transfer);
    this.#pendingSamples += message.samples?.length ?? 0;
    if (this.#pendingSamples < MOST_PENDING_S * 24_000) this.#pending.push([message, transfer]);
  }

  #told({ type, reply, samples, frame }) {
    const ms = (1000 * (samples ?? 0)) / this.#context.sampleRate;
    const known = reply !== null && (type !== "finished" || samples > 0);
    if (known) this.#position = { reply, ms };
    if (type === "flushed") {
      this.#flushed?.(reply === null ? this.#position : { reply, ms });
      this.#flushed = null;
    }
    const due = { position: ms >= this.#acknowledged + ACK_MS, paused: true, dry: true, finished: ms > this.#acknowledged }[type];
    if (known && due) this.#acknowledge(reply, ms);
    this.#on({ type, reply, ms, frame, latencyMs: 1000 * (this.#context.outputLatency || 0) });
  }

  #acknowledge(reply, ms) {
    this.#acknowledged = ms;
    this.#on({ type: "playback", reply, ms });
  }
}
