// The microphone's worklet: 20 ms frames of signed 16-bit PCM, and how loud each is.

const FRAME_MS = 20;
const MOST_RATE = 48000; // Hz, what the protocol takes

class Capture extends AudioWorkletProcessor {
  #thin = Math.ceil(sampleRate / MOST_RATE); // a 96 kHz device is averaged down by whole steps
  #frame = new Int16Array(Math.round((sampleRate / this.#thin / 1000) * FRAME_MS));
  #filled = 0;
  #sum = 0;
  #summed = 0;
  #peak = 0;

  constructor() {
    super();
    this.port.onmessage = () => this.#drain();
  }

  process([[input]]) {
    if (!input) return true; // no microphone is connected at the moment
    for (const sample of input) {
      this.#sum += sample;
      if (++this.#summed < this.#thin) continue;
      this.#take(this.#sum / this.#thin);
      this.#sum = this.#summed = 0;
    }
    return true;
  }

  #take(sample) {
    this.#peak = Math.max(this.#peak, Math.abs(sample));
    this.#frame[this.#filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
    if (this.#filled === this.#frame.length) this.#send(this.#frame.slice().buffer);
  }

  #send(pcm) {
    this.port.postMessage({ pcm, peak: this.#peak }, [pcm]);
    this.#filled = this.#peak = 0;
  }

  // What is left of a frame when the talk key is let go, then the word that this was all.
  #drain() {
    if (this.#filled > 0) this.#send(this.#frame.slice(0, this.#filled).buffer);
    this.port.postMessage({ drained: true });
  }
}

registerProcessor("capture", Capture);
