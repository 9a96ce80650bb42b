// The speaker's worklet: plays what the Queue holds and tells how far it is.

import { Queue } from "./queue.js";

const REPORTS_A_SECOND = 50;

class Playback extends AudioWorkletProcessor {
  #due = 0;
  #queue = new Queue(sampleRate, (event) => this.port.postMessage({ ...event, frame: currentFrame }));

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#obey(data);
  }

  #obey({ type, reply, samples }) {
    if (type === "push") this.#queue.push(reply, samples);
    else if (type === "end") this.#queue.end(reply);
    else this.#queue[type](); // pause, resume, flush
  }

  process(_inputs, [[out]]) {
    this.#queue.render(out);
    if (this.#queue.playing && currentFrame >= this.#due) {
      this.#due = currentFrame + sampleRate / REPORTS_A_SECOND;
      this.port.postMessage({ type: "position", ...this.#queue.position, frame: currentFrame + out.length });
    }
    return true;
  }
}

registerProcessor("playback", Playback);
