import assert from "node:assert/strict";
import { test } from "node:test";

import { Queue } from "../../static/worklets/queue.js";

const RATE = 24000;
const FADE = 240; // samples: 10 ms
const QUANTUM = 128;

const tone = (count, from = 0) => Float32Array.from({ length: count }, (_, i) => 0.5 + 0.001 * ((from + i) % 400));

function player() {
  const told = [];
  const queue = new Queue(RATE, (event) => told.push(event));
  const render = (quanta = 1) => {
    const out = new Float32Array(quanta * QUANTUM);
    for (let i = 0; i < quanta; i++) queue.render(out.subarray(i * QUANTUM, (i + 1) * QUANTUM));
    return out;
  };
  return { queue, told, render, types: () => told.map((event) => event.type) };
}

test("what is played is what was pushed, to the bit, whatever the sizes of the pieces", () => {
  const { queue, told, render } = player();
  const sent = tone(5000);
  for (let at = 0, size = 1; at < sent.length; at += size, size = (size * 7) % 613) queue.push(1, sent.slice(at, at + size));
  queue.end(1);
  const heard = render(50);
  assert.deepEqual(heard.subarray(0, 5000), sent);
  assert.ok(heard.subarray(5000).every((each) => each === 0));
  assert.deepEqual(told.at(-1), { type: "finished", reply: 1, samples: 5000 });
});

test("a pause fades out in 10 ms, holds, and goes on from the very sample it said", () => {
  const { queue, told, render } = player();
  const sent = tone(9600);
  queue.push(1, sent);
  render(10);
  queue.pause();
  const stop = told.at(-1);
  assert.deepEqual(stop, { type: "paused", reply: 1, samples: 10 * QUANTUM + FADE });
  const fade = render(5);
  assert.ok(fade.subarray(0, FADE).every((each, i) => Math.abs(each - sent[1280 + i] * (1 - (i + 1) / FADE)) < 1e-4));
  assert.ok(fade.subarray(FADE).every((each) => each === 0));
  assert.equal(queue.position.samples, stop.samples);
  queue.resume();
  const on = render(10);
  assert.ok(on.subarray(0, FADE).every((each, i) => Math.abs(each - sent[stop.samples + i] * ((i + 1) / FADE)) < 1e-4));
  assert.deepEqual(on.subarray(FADE), sent.subarray(stop.samples + FADE, stop.samples + 1280));
});

test("samples that arrive while it fades out do not move the position it told", () => {
  const { queue, told, render } = player();
  queue.push(1, tone(1300));
  render(10);
  queue.pause();
  queue.push(1, tone(4800));
  render(5);
  assert.equal(told.at(-1).samples, 1300);
  assert.equal(queue.position.samples, 1300);
});

test("a flush is silent after one quantum and without a click within it", () => {
  const { queue, told, render } = player();
  queue.push(1, tone(9600));
  render(10);
  queue.flush();
  const fade = render(1);
  assert.ok(Math.abs(fade[0] - tone(1, 1280)[0]) < 0.01 && Math.abs(fade.at(-1)) < 1e-6);
  assert.deepEqual(told.at(-1), { type: "flushed", reply: 1, samples: 11 * QUANTUM });
  assert.ok(render(20).every((each) => each === 0));
  queue.push(2, tone(2400));
  queue.end(2);
  assert.deepEqual(render(20).subarray(0, 2400), tone(2400));
});

test("a flush of a paused reply is silent at once and does not leave the next one paused", () => {
  const { queue, told, render } = player();
  queue.push(1, tone(9600));
  render(10);
  queue.pause();
  render(3);
  queue.flush();
  assert.deepEqual(told.at(-1), { type: "flushed", reply: 1, samples: 1520 });
  queue.push(2, tone(2400));
  assert.deepEqual(render(10), tone(1280));
});

test("running dry tells of it, dies away without a click, and no sample is lost", () => {
  const { queue, render, types } = player();
  queue.push(1, tone(1300));
  const before = render(11);
  assert.deepEqual(before.subarray(0, 1300), tone(1300));
  const gap = before.subarray(1300);
  assert.ok(gap[0] > 0.4 && gap.every((each, i) => i === 0 || each <= gap[i - 1]));
  assert.deepEqual(types(), ["started", "dry"]);
  assert.ok(Math.abs(render(20).at(-1)) === 0);
  queue.push(1, tone(4800, 1300));
  assert.equal(types().at(-1), "underrun");
  const after = render(30);
  assert.ok(Math.abs(after[0]) < 0.01);
  assert.deepEqual(after.subarray(FADE), tone(30 * QUANTUM - FADE, 1300 + FADE));
});

test("what comes while the last of it is still dying away makes no click, wherever in a quantum it ran dry", () => {
  const level = (count) => new Float32Array(count).fill(0.5);
  for (let short = 0; short < QUANTUM; short++) {
    const { queue, render, types } = player();
    const sent = 10 * QUANTUM + short;
    queue.push(1, level(sent));
    const before = render(11);
    assert.equal(types().at(-1), "dry");
    queue.push(1, level(4800));
    const after = render(30);
    const all = [...before.subarray(sent - 1), ...after];
    const jump = Math.max(...all.slice(1).map((each, i) => Math.abs(each - all[i])));
    assert.ok(jump < 0.03, `${short}: ${jump}`);
    assert.ok(after.subarray(FADE).every((each) => each === 0.5), "exact again after the fade");
  }
});

test("a reply waits for its jitter buffer, but not for ever", () => {
  const { queue, render } = player();
  queue.push(1, tone(200));
  assert.ok(render(10).every((each) => each === 0));
  assert.ok(render(10).some((each) => each !== 0));
});

test("one reply follows another without a sample between them", () => {
  const { queue, render, types } = player();
  queue.push(1, tone(1000));
  queue.push(2, tone(2000, 77));
  queue.end(2);
  const heard = render(24);
  assert.deepEqual(heard.subarray(0, 1000), tone(1000));
  assert.deepEqual(heard.subarray(1000, 3000), tone(2000, 77));
  assert.deepEqual(types(), ["started", "finished", "started", "finished"]);
});

test("after many stalls it waits for no more than half of what a server lets go at once", () => {
  const { queue, told, render } = player();
  const least = (RATE * 150) / 1000;
  queue.push(1, tone(2000));
  for (let stall = 0; stall < 8; stall++) {
    while (told.at(-1)?.type !== "dry") render();
    queue.push(1, tone(least));
    const on = render(5).subarray(-QUANTUM);
    assert.ok(stall === 0 || on.every((each) => each > 0.1), "it goes on at once");
  }
  assert.equal(told.filter(({ type }) => type === "underrun").length, 8);
});
