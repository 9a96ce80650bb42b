// What a back end sends, read: PCM chunk by chunk, and the end. Notices what is missing.

import { Failure } from "./failure.js";

export const RATE = 48_000;

export class Reading {
  chunks = 0;
  complete = false;

  /** The PCM in one message, or null where it is only a sign of life. */
  read(message) {
    if (message.error || message.status === "error") {
      throw new Failure("upstream_failed", 502, `the server failed: ${reason(message)}`);
    }
    const sound = message.audio_chunk ?? message.audio;
    const pcm = sound === undefined ? null : this.#chunk(message, sound);
    if (message.tokens && sound === undefined) {
      throw new Failure("upstream_garbled", 502, "the service sends tokens; at the edge only audio can be forwarded");
    }
    if (message.status === "complete") {
      const total = message.total_chunks ?? this.chunks;
      if (total !== this.chunks) throw garbled(`of ${total} chunks ${this.chunks} came`);
      this.complete = true;
    }
    return pcm;
  }

  /** The stream has ended. */
  finish() {
    if (this.complete) return;
    throw new Failure("upstream_died", 502, `the server stopped in the middle, after ${this.chunks} chunks`);
  }

  #chunk(message, sound) {
    this.chunks += 1;
    const number = message.chunk ?? this.chunks;
    if (number !== this.chunks) throw garbled(`chunk ${number} came where ${this.chunks} was due`);
    const format = message.format ?? "pcm_16";
    if (format !== "pcm_16") throw garbled(`chunk ${number}: ${format}; at the edge only pcm_16 can be forwarded`);
    const rate = message.sample_rate ?? RATE;
    if (rate !== RATE) throw garbled(`chunk ${number}: ${rate} Hz; ${RATE} Hz is needed here`);
    const pcm = decoded(sound, number);
    if (pcm.length % 2) throw garbled(`chunk ${number}: not a whole number of 16-bit samples`);
    return pcm;
  }
}

function decoded(sound, number) {
  try {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(sound);
    return Uint8Array.from(atob(sound), (character) => character.charCodeAt(0));
  } catch {
    throw garbled(`chunk ${number}: audio_chunk is not base64`);
  }
}

function garbled(what) {
  return new Failure("upstream_garbled", 502, what);
}

/** The back end's own word of what went wrong. */
export function reason(message) {
  const told = message.error ?? message.message ?? "no reason given";
  return String(told.message ?? told).slice(0, 300);
}
