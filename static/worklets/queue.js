// The playback queue: a jitter buffer of replies that pauses, resumes and flushes without a click. Pure: no clock and no
// audio API of its own, so that it runs in the worklet and under node alike. Positions are samples of one reply.

const FADE_MS = 10; // pause and resume; a flush fades within the one quantum it has
// The jitter buffer grows to this at most when the network stalls again and again: half of the lead that a server gives
// (`lead_ms`). To wait for more than has been let go would only lengthen each gap.
const MOST_TARGET_MS = 150;

export class Queue {
  #rate;
  #target; // samples to hold before a reply begins, or goes on after running dry
  #segments = []; // one per reply, in order: {reply, chunks, offset, available, played, ended, dry, waited}
  #tail = null; // the segment that a flush is fading out
  #state = "filling"; // filling, playing or paused
  #gain = 1;
  #slope = 0; // of the gain, per sample
  #stopAt = Infinity; // the position where a fade-out ends
  #residue = 0; // the last sample before running dry, dying away, also under what goes on meanwhile
  #lingered = 0; // up to where, in the quantum at hand, it is mixed in
  #tell;

  /** `tell(event)` receives {type, reply, samples}: started, paused, resumed, dry, underrun,
   * finished and flushed. */
  constructor(rate, tell = () => {}, targetMs = 40) {
    this.#rate = rate;
    this.#tell = tell;
    this.#target = Math.round((rate * targetMs) / 1000);
  }

  get position() {
    const [now] = this.#segments;
    return now ? { reply: now.reply, samples: now.played, buffered: now.available } : null;
  }

  get playing() {
    return this.#state === "playing";
  }

  push(reply, samples) {
    let segment = this.#segments.at(-1);
    if (segment?.reply !== reply) {
      if (segment) segment.ended = true; // the next reply's audio means that the last one's is complete
      segment = { reply, chunks: [], offset: 0, available: 0, played: 0, ended: false, dry: false, waited: 0 };
      this.#segments.push(segment);
    }
    segment.chunks.push(samples);
    segment.available += samples.length;
    if (segment.dry) this.#stalled(segment);
  }

  /** No more of `reply` will come. */
  end(reply) {
    const segment = this.#segments.find((each) => each.reply === reply);
    if (segment) segment.ended = true;
    else this.#tell({ type: "finished", reply, samples: 0 });
  }

  /** Fade out and hold. The position told is where it will stand still: the fade's own samples count as heard. */
  pause() {
    if (this.#state === "paused" || this.#slope < 0) return;
    const [now] = this.#segments;
    if (this.#state !== "playing") {
      this.#state = "paused";
      this.#gain = 0;
      this.#tell({ type: "paused", reply: now?.reply ?? null, samples: now?.played ?? 0 });
      return;
    }
    this.#slope = -1000 / (FADE_MS * this.#rate);
    const fading = Math.ceil(this.#gain / -this.#slope - 1e-6);
    this.#stopAt = now.played + Math.min(now.available, fading);
    this.#tell({ type: "paused", reply: now.reply, samples: this.#stopAt });
  }

  /** Go on from the very sample where the pause stopped. */
  resume() {
    if (this.#state !== "paused" && this.#slope >= 0) return;
    const [now] = this.#segments;
    const begun = now && now.played > 0;
    if (this.#state === "paused") this.#state = begun ? "playing" : "filling";
    this.#slope = begun ? 1000 / (FADE_MS * this.#rate) : 0;
    this.#stopAt = Infinity;
    if (!begun) this.#gain = 1;
    this.#tell({ type: "resumed", reply: now?.reply ?? null, samples: now?.played ?? 0 });
  }

  /** Drop everything: what sounds fades out within the next quantum, and `flushed` tells how far it got. */
  flush() {
    const [now = null] = this.#segments;
    this.#segments = [];
    this.#residue = 0;
    if (now && this.#state === "playing" && this.#gain > 0) this.#tail = now;
    else this.#tell({ type: "flushed", reply: now?.reply ?? null, samples: now?.played ?? 0 });
    if (!this.#tail) this.#gain = 1;
    this.#slope = 0;
    this.#stopAt = Infinity;
    this.#state = "filling";
  }

  /** Fill `out` (float32, mono) with what comes next; silence where there is nothing. */
  render(out) {
    if (this.#tail) return this.#fadeTail(out);
    let at = 0;
    while (at < out.length && this.#ready(out.length)) at = this.#play(out, at);
    out.fill(0, at);
    this.#linger(out, out.length);
    this.#lingered = 0;
  }

  #fadeTail(out) {
    const tail = this.#tail;
    this.#tail = null;
    this.#slope = -this.#gain / out.length;
    const filled = this.#copy(tail, out, 0);
    const last = (tail.last ?? 0) * this.#gain;
    for (let i = filled; i < out.length; i++) out[i] = last * (1 - (i - filled + 1) / (out.length - filled));
    this.#slope = 0;
    this.#gain = 1;
    this.#tell({ type: "flushed", reply: tail.reply, samples: tail.played });
  }

  // Whether there is something to play now; a reply begins once enough is there, has waited long enough, or is complete.
  #ready(quantum) {
    const [now] = this.#segments;
    if (!now || this.#state === "paused") return false;
    if (this.#state === "playing") return true;
    now.waited += quantum;
    const enough = now.ended || now.available >= this.#target || now.waited >= 2 * this.#target;
    if (!enough || (now.available === 0 && !now.ended)) return false;
    this.#state = "playing";
    if (now.played === 0) this.#tell({ type: "started", reply: now.reply, samples: 0 });
    return true;
  }

  #play(out, at) {
    const [now] = this.#segments;
    at = this.#copy(now, out, at);
    if (now.played === this.#stopAt) return this.#hold(now, out, at);
    if (now.available > 0) return at;
    if (now.ended) this.#finish(now);
    else if (at < out.length) this.#runDry(now, out, at);
    return at;
  }

  #hold(segment, out, at) {
    this.#state = "paused";
    this.#breakOff(segment, out, at);
    this.#stopAt = Infinity;
    this.#gain = 0;
    this.#slope = 0;
    return at;
  }

  #finish(segment) {
    this.#segments.shift();
    this.#state = "filling";
    this.#gain = 1;
    this.#slope = 0;
    this.#tell({ type: "finished", reply: segment.reply, samples: segment.played });
  }

  // Nothing is there: the reply's end, or the network's fault. Let the last sample die away instead of breaking off.
  #runDry(segment, out, at) {
    this.#breakOff(segment, out, at);
    this.#state = "filling";
    this.#gain = 0;
    this.#slope = 1000 / (FADE_MS * this.#rate);
    segment.dry = true;
    this.#tell({ type: "dry", reply: segment.reply, samples: segment.played });
  }

  // More came after it ran dry: it was the network, so hold more from now on.
  #stalled(segment) {
    segment.dry = false;
    segment.waited = 0;
    this.#target = Math.min(this.#target * 1.5, (MOST_TARGET_MS * this.#rate) / 1000);
    this.#tell({ type: "underrun", reply: segment.reply, samples: segment.played });
  }

  #breakOff(segment, out, at) {
    this.#linger(out, at);
    this.#residue += (segment.last ?? 0) * this.#gain;
  }

  // Mix the residue in, up to `end`. It is gone within a fade: after that what is played is exact again.
  #linger(out, end) {
    const decay = Math.exp(-10_000 / (FADE_MS * this.#rate));
    for (let at = this.#lingered; at < end && this.#residue !== 0; at++) {
      this.#residue = Math.abs(this.#residue) > 1e-4 ? this.#residue * decay : 0;
      out[at] += this.#residue;
    }
    this.#lingered = end;
  }

  // As much of `segment` as fits, and no further than the end of a fade-out; returns where `out` is filled to.
  #copy(segment, out, at) {
    while (at < out.length && segment.available > 0 && segment.played < this.#stopAt) {
      const chunk = segment.chunks[0];
      const room = Math.min(out.length - at, this.#stopAt - segment.played);
      const piece = chunk.subarray(segment.offset, segment.offset + room);
      this.#put(piece, out, at);
      at += piece.length;
      this.#advance(segment, piece);
    }
    return at;
  }

  #advance(segment, piece) {
    segment.last = piece.at(-1);
    segment.offset += piece.length;
    segment.available -= piece.length;
    segment.played += piece.length;
    if (segment.offset < segment.chunks[0].length) return;
    segment.chunks.shift();
    segment.offset = 0;
  }

  #put(piece, out, at) {
    if (this.#slope === 0 && this.#gain === 1) return out.set(piece, at); // to the very bit
    for (let i = 0; i < piece.length; i++) {
      this.#gain = Math.min(1, Math.max(0, this.#gain + this.#slope));
      out[at + i] = piece[i] * this.#gain;
    }
    if (this.#gain === 1) this.#slope = 0;
  }
}
