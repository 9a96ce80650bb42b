// Reading a text aloud: asked of a service in a stream, or in one piece where that fails; played without a gap; kept.

import { Player } from "./player.js";
import { speakerTrouble } from "./words.js";

export const RATE = 48_000; // Hz of what the server sends
const AHEAD = 10 * RATE; // samples given to the speaker beyond what sounds
const LOOK_MS = 300; // between two looks at how the stream goes

/** What to tell the user: a failure in plain words. */
class Trouble extends Error {}

export class ReadAloud {
  #on;
  #headers;
  #player;
  #reply = 0;
  #leave = null; // aborts what is under way
  #pieces = []; // Int16Array, all that came
  #fed = 0; // pieces given to the speaker
  #fedSamples = 0;
  #whole = false; // nothing more will come
  #state = idle();

  /** `on(state)` is told every change; `token` is the server's, where it wants one; `tap` listens in. */
  constructor({ on, token = "", tap = null, heard = () => {} }) {
    this.#on = on;
    this.#headers = { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    this.#player = new Player((event) => (heard(event), this.#playing(event)));
    this.#player.tap = tap;
  }

  get state() {
    return this.#state;
  }

  get busy() {
    return ["asking", "reading"].includes(this.#state.phase);
  }

  sound({ volume, speaker }) {
    this.#player.setVolume(volume);
    this.#player.setSink(speaker);
  }

  /** What the server offers: {streaming, longest, services: [{name, kind, format}]}. */
  async services() {
    const response = await fetch("api/tts/services", { headers: this.#headers });
    if (!response.ok) throw new Trouble(await said(response));
    return response.json();
  }

  /** Ask for `text` and play it as it comes. Needs a user's gesture. */
  async start({ text, voice, service, streaming }) {
    this.stop();
    this.#begin();
    const leave = (this.#leave = new AbortController());
    const asked = { text, voice, service };
    this.#tell({ ...idle(), phase: "asking", mode: streaming ? "stream" : "batch", begin: performance.now() });
    try {
      if (this.#player.rate !== RATE) await this.#player.open(RATE);
      this.#player.wake();
      this.#player.announce(this.#reply, RATE);
      await this.#fetched(asked, streaming, leave.signal);
      this.#whole = true;
      this.#feed();
    } catch (error) {
      if (leave.signal.aborted) return;
      this.#player.flush(this.#reply);
      this.#tell({ phase: "failed", note: error instanceof Trouble ? error.message : speakerTrouble(error) });
    }
  }

  stop() {
    if (!this.busy) return;
    this.#leave?.abort();
    this.#player.flush(this.#reply);
    this.#tell({ phase: "stopped" });
  }

  /** All that came, as a WAV file; null where that is nothing. */
  recording() {
    const samples = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    return samples ? new Blob([wavHeader(samples), ...this.#pieces], { type: "audio/wav" }) : null;
  }

  #begin() {
    this.#reply += 1;
    this.#pieces = [];
    this.#fed = this.#fedSamples = 0;
    this.#whole = false;
  }

  async #fetched(asked, streaming, signal) {
    if (!streaming) return this.#batch(asked, signal);
    try {
      await this.#stream(asked, signal);
    } catch (error) {
      if (signal.aborted) throw error;
      const why = error instanceof Trouble ? error.message : "The connection broke off.";
      this.#tell({ mode: "batch", note: `Streaming failed: ${why} Getting the whole recording instead.` });
      await this.#batch(asked, signal);
    }
  }

  async #stream(asked, signal) {
    const id = `page-${Math.random().toString(36).slice(2)}`;
    const response = await this.#post("stream", asked, signal, { "X-Request-Id": id });
    const look = setInterval(() => this.#look(id), LOOK_MS);
    try {
      await this.#read(response.body.getReader());
    } catch (error) {
      const told = signal.aborted ? null : await this.#told(id);
      throw told?.message ? new Trouble(`${told.message}.`) : error;
    } finally {
      clearInterval(look);
    }
    await this.#look(id);
  }

  async #read(reader) {
    let odd = new Uint8Array(0);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const bytes = new Uint8Array(odd.length + value.length);
      bytes.set(odd);
      bytes.set(value, odd.length);
      odd = bytes.slice(bytes.length & ~1);
      this.#add(new Int16Array(bytes.buffer, 0, bytes.length >> 1));
    }
  }

  async #batch(asked, signal) {
    const response = await this.#post("batch", asked, signal);
    const file = await response.arrayBuffer();
    const pcm = new Int16Array(file, 44, (file.byteLength - 44) >> 1);
    const heard = this.#fedSamples; // of a stream that broke off: go on where it did
    this.#pieces = [pcm.subarray(0, heard), pcm.subarray(heard)].filter(({ length }) => length > 0);
    this.#fed = heard > 0 && pcm.length > 0 ? 1 : 0;
    this.#tell({ phase: "reading", chunks: this.#state.chunks || 1, receivedMs: ms(pcm.length) });
    this.#feed();
  }

  async #post(path, asked, signal, more = {}) {
    let response;
    try {
      response = await fetch(`api/tts/${path}`, { method: "POST", headers: { ...this.#headers, ...more }, body: JSON.stringify(asked), signal });
    } catch (error) {
      throw signal.aborted ? error : new Trouble("The server cannot be reached.");
    }
    if (!response.ok) throw new Trouble(await said(response));
    return response;
  }

  async #look(id) {
    const told = await this.#told(id);
    if (told && this.busy) this.#tell({ chunks: told.chunks });
  }

  async #told(id) {
    try {
      const response = await fetch(`api/tts/streams/${id}`, { headers: this.#headers });
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  }

  #add(pcm) {
    if (pcm.length === 0) return;
    this.#pieces.push(pcm);
    this.#tell({ phase: "reading", receivedMs: this.#state.receivedMs + ms(pcm.length) });
    this.#feed();
  }

  // As much as sounds within the next seconds: the rest waits here, so that Stop has little to take back.
  #feed() {
    const sounded = (this.#state.playedMs * RATE) / 1000;
    while (this.#fed < this.#pieces.length && this.#fedSamples - sounded < AHEAD) {
      const piece = this.#pieces[this.#fed++];
      this.#fedSamples += piece.length;
      this.#player.push(piece.slice().buffer);
    }
    if (this.#whole && this.#fed === this.#pieces.length) this.#player.end(this.#reply);
  }

  #playing({ type, reply, ms: at }) {
    if (reply !== this.#reply || !this.busy) return;
    if (type === "started") this.#tell({ firstMs: performance.now() - this.#state.begin });
    if (type === "underrun") this.#tell({ stalls: this.#state.stalls + 1 });
    if (type === "position") {
      this.#tell({ playedMs: at });
      this.#feed();
    }
    if (type === "finished" && this.#whole) this.#tell({ phase: "done", playedMs: Math.max(at, this.#state.playedMs) });
  }

  #tell(changes) {
    this.#state = { ...this.#state, ...changes };
    this.#on(this.#state);
  }
}

function idle() {
  return { phase: "idle", mode: "stream", begin: 0, chunks: 0, receivedMs: 0, playedMs: 0, firstMs: null, stalls: 0, note: "" };
}

function ms(samples) {
  return (samples * 1000) / RATE;
}

async function said(response) {
  try {
    const { error, message } = await response.json();
    return plain(error ?? message ?? `The server answered ${response.status}`);
  } catch {
    return `The server answered ${response.status}.`;
  }
}

function plain(text) {
  const sentence = text[0].toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}

function wavHeader(samples) {
  const view = new DataView(new ArrayBuffer(44));
  const bytes = samples * 2;
  const word = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, RATE, true);
  view.setUint32(28, RATE * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, bytes, true);
  return view;
}
