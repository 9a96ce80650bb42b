// The microphone: opened with echo cancellation, captured at 16 kHz in a worklet, 20 ms a frame.

const RATE = 16_000;

export class Microphone {
  #on;
  #context = null;
  #stream = null;
  #source = null;
  #node = null;
  #drained = [];
  #muted = false;

  /** `on`: frame(ArrayBuffer of s16le, peak 0..1), lost() when the device goes away. */
  constructor(on) {
    this.#on = on;
  }

  get open() {
    return this.#stream !== null;
  }

  /** Hz; 16000 where the browser lets us choose. */
  get rate() {
    const rate = this.#context?.sampleRate ?? RATE;
    return rate / Math.ceil(rate / 48_000);
  }

  /** Open device `id` ("" for the default); throws what getUserMedia throws. */
  async start(id = "") {
    if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new DOMException("", "NotSupportedError");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: constraints(id) });
    this.#release();
    this.#stream = stream;
    this.mute(this.#muted);
    const [track] = stream.getAudioTracks();
    track.onended = () => this.#on.lost();
    await this.#connect(stream);
  }

  mute(muted) {
    this.#muted = muted;
    for (const track of this.#stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** Resolves once every sample captured so far has been handed to `frame`. */
  drain() {
    if (!this.#node || this.#context.state !== "running") return Promise.resolve();
    return new Promise((resolve) => {
      this.#drained.push(resolve);
      this.#node.port.postMessage("drain");
    });
  }

  wake() {
    if (this.#context && this.#context.state !== "running") this.#context.resume();
  }

  close() {
    this.#release();
    this.#context?.close();
    this.#context = this.#node = null;
  }

  async #connect(stream) {
    if (!this.#context) await this.#prepare(new AudioContext({ sampleRate: RATE }));
    try {
      this.#source = this.#context.createMediaStreamSource(stream);
    } catch {
      await this.#context.close(); // Firefox joins a device only to a context of the device's own rate
      await this.#prepare(new AudioContext());
      this.#source = this.#context.createMediaStreamSource(stream);
    }
    this.#source.connect(this.#node);
  }

  async #prepare(context) {
    await context.audioWorklet.addModule(new URL("worklets/capture.js", import.meta.url));
    context.resume();
    this.#context = context;
    this.#node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.#node.port.onmessage = ({ data }) => {
      if (data.drained) this.#drained.shift()?.();
      else this.#on.frame(data.pcm, data.peak);
    };
  }

  #release() {
    this.#source?.disconnect();
    this.#source = null;
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.#stream = null;
  }
}

/** Microphones and speakers: [{id, label, kind}]. Labels are known only after permission. */
export async function devices() {
  const all = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return all.filter((each) => each.deviceId).map(({ deviceId, label, kind }) => ({ id: deviceId, label, kind }));
}

function constraints(id) {
  const clean = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  return id ? { ...clean, deviceId: { exact: id } } : clean;
}
