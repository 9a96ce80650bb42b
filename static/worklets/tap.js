// Records what passes through it, unchanged: how tests hear what the page plays.

const BATCH = 16; // quanta a message

class Tap extends AudioWorkletProcessor {
  #held = [];
  #frame = 0;

  process([[input]], [[out]]) {
    if (input) out.set(input);
    if (this.#held.length === 0) this.#frame = currentFrame;
    this.#held.push(out.slice());
    if (this.#held.length === BATCH) this.#send(out.length);
    return true;
  }

  #send(quantum) {
    const samples = new Float32Array(BATCH * quantum);
    this.#held.forEach((each, index) => samples.set(each, index * quantum));
    this.#held = [];
    this.port.postMessage({ frame: this.#frame, samples }, [samples.buffer]);
  }
}

registerProcessor("tap", Tap);
