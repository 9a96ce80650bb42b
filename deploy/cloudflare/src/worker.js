// Parley's middleware at the edge: POST /api/tts/stream {text, voice, service} answers PCM at 48 kHz as it is made.
// Nothing is decoded here: services are asked for audio. What fails before the first sound is answered with JSON and a
// status; what fails later breaks the stream off. A listener who leaves stops the service.

import { Failure } from "./failure.js";
import { service, settings } from "./settings.js";
import { speech } from "./upstream.js";

const LARGEST = 1_048_576; // bytes of a request

export default {
  async fetch(request, env, context) {
    const given = request.headers.get("X-Request-Id") ?? "";
    const id = /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : crypto.randomUUID();
    let shared = { "X-Request-Id": id };
    try {
      const rules = settings(env);
      shared = { ...shared, ...cors(request, rules) };
      return await route(request, env, context, rules, shared, id);
    } catch (error) {
      return refusal(error, shared, id);
    }
  },
};

async function route(request, env, context, rules, shared, id) {
  const { pathname } = new URL(request.url);
  if (request.method === "OPTIONS") return new Response(null, { status: 204, headers: shared });
  if (pathname === "/health") return json({ status: "healthy", tier: "middleware-cloudflare" }, 200, shared);
  if (pathname !== "/api/tts/stream") throw new Failure("not_found", 404, "Not found");
  if (request.method !== "POST") throw new Failure("method", 405, "POST is needed");
  if (!rules.streaming) {
    const disabled = { error: "Streaming is disabled", message: "Set ENABLE_STREAMING=true to enable", code: "disabled" };
    return json({ ...disabled, tier: "middleware", requestId: id }, 503, shared);
  }
  const wanted = await asked(request, rules);
  const over = new Promise((resolve) => (wanted.over = resolve));
  context.waitUntil(over); // a listener who leaves would else take along what tells the service so
  try {
    return await stream(service(env, wanted.service), wanted, rules, request.signal, shared, id);
  } catch (error) {
    wanted.over();
    throw error;
  }
}

async function stream(chosen, wanted, rules, leaving, shared, id) {
  const stop = new AbortController();
  leaving?.addEventListener("abort", () => stop.abort());
  const patience = new Patience(rules, stop);
  const pieces = speech(chosen, wanted, stop.signal);
  const first = await patience.next(pieces);
  if (first.done) throw new Failure("upstream_garbled", 502, "the service sent no speech");
  const begin = Date.now();
  let bytes = 0;

  const body = new ReadableStream({
    type: "bytes",
    start(controller) {
      bytes += first.value.length; // before: to enqueue it is to give it away
      controller.enqueue(first.value);
    },
    async pull(controller) {
      try {
        const { done, value } = await patience.next(pieces);
        if (done) {
          log({ id, service: wanted.service, end: "ok", bytes, ms: Date.now() - begin });
          wanted.over();
          controller.close();
          controller.byobRequest?.respond(0);
        } else {
          bytes += value.length;
          controller.enqueue(value);
        }
      } catch (error) {
        log({ id, service: wanted.service, end: error.code ?? "internal", bytes, why: error.message });
        wanted.over();
        controller.error(error);
      }
    },
    async cancel() {
      log({ id, service: wanted.service, end: "left", bytes });
      stop.abort();
      await pieces.return().catch(() => {});
      wanted.over();
    },
  });
  return new Response(body, {
    headers: {
      ...shared,
      "Content-Type": "audio/octet-stream",
      "Content-Encoding": "identity", // or the edge may compress, and so buffer
      "Cache-Control": "no-cache, no-transform",
      "X-Accel-Buffering": "no",
      "X-Sample-Rate": "48000",
    },
  });
}

/** How long may still be waited for the service: for the next chunk, and in all. A slow listener costs nothing. */
class Patience {
  #left;
  constructor(rules, stop) {
    this.#left = rules.totalMs;
    this.chunkMs = rules.chunkMs;
    this.stop = stop;
  }

  async next(pieces) {
    const limit = Math.min(this.#left, this.chunkMs);
    const begin = Date.now();
    let timer;
    const late = new Promise((_, reject) => {
      const what = limit === this.#left ? "the speech is not complete" : "no chunk came";
      timer = setTimeout(() => reject(new Failure("upstream_timeout", 504, `${what} after ${limit / 1000} s`)), limit);
    });
    try {
      return await Promise.race([pieces.next(), late]);
    } catch (error) {
      this.stop.abort();
      pieces.return().catch(() => {});
      throw error;
    } finally {
      clearTimeout(timer);
      this.#left = Math.max(1, this.#left - (Date.now() - begin));
    }
  }
}

async function asked(request, rules) {
  if (Number(request.headers.get("Content-Length") ?? 0) > LARGEST) throw new Failure("too_big", 413, "the request is too large");
  let body;
  try {
    body = await request.json();
  } catch {
    throw new Failure("bad_request", 400, "the request is no JSON");
  }
  const { text, voice, service: name } = body ?? {};
  if (typeof text !== "string" || !/[\p{L}\p{N}]/u.test(text)) throw new Failure("bad_request", 400, "text: required, something with words in it");
  if (!text.isWellFormed()) throw new Failure("bad_request", 400, "text: it holds half a character");
  if (text.length > rules.longest) throw new Failure("bad_request", 400, `text: ${text.length} characters; at most ${rules.longest}`);
  for (const [field, value] of Object.entries({ voice, service: name })) {
    if (typeof value !== "string" || !value.trim() || value.length > 200) throw new Failure("bad_request", 400, `${field}: required, a string`);
  }
  return { text, voice, service: name };
}

function cors(request, rules) {
  const origin = request.headers.get("Origin");
  if (!origin) return {};
  if (!rules.origins.includes("*") && !rules.origins.includes(origin) && new URL(request.url).origin !== origin) {
    throw new Failure("forbidden_origin", 403, "this page may not ask; add its origin to ALLOWED_ORIGINS");
  }
  return {
    "Access-Control-Allow-Origin": rules.origins.includes("*") ? "*" : origin,
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, X-Request-Id",
    "Access-Control-Expose-Headers": "X-Request-Id, X-Sample-Rate",
    Vary: "Origin",
  };
}

function refusal(error, shared, id) {
  const known = error instanceof Failure;
  if (!known) console.error(error.stack ?? error);
  const message = known ? error.message : "something went wrong here";
  log({ id, end: known ? error.code : "internal", why: error.message });
  const told = { error: message, message, code: known ? error.code : "internal", tier: "middleware", requestId: id };
  return json(told, known ? error.status : 500, shared);
}

function json(data, status, headers) {
  return new Response(JSON.stringify(data), { status, headers: { ...headers, "Content-Type": "application/json" } });
}

function log(fields) {
  console.log(JSON.stringify(fields));
}
