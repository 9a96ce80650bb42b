// JSON objects out of a stream of text, however the network cut or joined them. Every character is looked at once.

const OUTSIDE = /[{}[\]"]/g;
const INSIDE = /["\\]/g;
const BETWEEN = /[\s,]*/y;
const LARGEST = 32 * 1024 * 1024;

export class Garbled extends Error {}

/** Holds at most one object that is not yet whole. */
export class Objects {
  #held = []; // what came of it so far
  #size = 0;
  #depth = 0;
  #quoted = false;
  #escaped = false; // the text ended behind a backslash

  /** The objects that `text` completes. */
  push(text) {
    const found = [];
    let begin = 0;
    for (let at = this.#next(text, 0); at !== null; at = this.#next(text, begin)) {
      this.#held.push(text.slice(begin, at));
      found.push(parsed(this.#held.join("")));
      this.#held = [];
      this.#size = 0;
      begin = at;
    }
    this.#hold(text.slice(begin));
    return found;
  }

  /** Whether the stream ended between two objects. */
  get whole() {
    return this.#size === 0;
  }

  #hold(rest) {
    const text = this.#depth ? rest : rest.trimStart();
    if (!this.#depth && (text === "" || /^[\s,]+$/.test(text))) return;
    this.#held.push(text);
    this.#size += text.length;
    if (this.#size > LARGEST) throw new Garbled(`an object of more than ${LARGEST} characters`);
  }

  /** Where the object that begins (or goes on) at `at` ends; null where it is not whole. */
  #next(text, at) {
    if (!this.#depth) {
      BETWEEN.lastIndex = at;
      BETWEEN.exec(text);
      at = BETWEEN.lastIndex;
      if (at < text.length && text[at] !== "{") throw new Garbled(`${text.slice(at, at + 40)} is no JSON object`);
    }
    while (at !== null && at < text.length) {
      if (this.#quoted) {
        at = this.#string(text, at);
        continue;
      }
      OUTSIDE.lastIndex = at;
      const mark = OUTSIDE.exec(text);
      if (!mark) return null;
      at = OUTSIDE.lastIndex;
      if (mark[0] === '"') this.#quoted = true;
      else if (mark[0] === "{" || mark[0] === "[") this.#depth += 1;
      else if ((this.#depth -= 1) === 0) return at;
    }
    return null;
  }

  /** Behind the string that goes on at `at`; null where it does not end here. */
  #string(text, at) {
    if (this.#escaped) {
      this.#escaped = false;
      at += 1;
    }
    for (;;) {
      INSIDE.lastIndex = at;
      const mark = INSIDE.exec(text);
      if (!mark) return null;
      at = INSIDE.lastIndex;
      if (mark[0] === '"') {
        this.#quoted = false;
        return at;
      }
      if (at === text.length) {
        this.#escaped = true;
        return null;
      }
      at += 1;
    }
  }
}

function parsed(text) {
  try {
    return JSON.parse(text.replace(/^[\s,]+/, ""));
  } catch (error) {
    throw new Garbled(`${text.slice(0, 40)} is no JSON (${error.message})`);
  }
}
