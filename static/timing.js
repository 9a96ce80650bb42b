// Where a turn's milliseconds went: the server's timeline as stages that follow one another. Pure.

/** The timeline's points in order, in ms from the end of speech, and the name of the stretch that ends at each. */
const POINTS = [
  ["turn_end", "Waiting for you to finish"],
  ["transcript", "Understanding"],
  ["first_token", "First word thought of"],
  ["first_sentence", "First sentence"],
  ["first_audio", "Voice"],
  ["first_sent", "Sending"],
  ["first_heard", "Network and player"],
];

/** [{name, label, ms}] of one turn.metrics event, and their sum. A stage that was ready before an earlier one let it
 * go on (an answer prepared while the user was still being waited for) cost nothing; one that is unknown is left out. */
export function stages(metrics) {
  const found = [];
  let last = 0;
  for (const [name, label] of POINTS) {
    const at = metrics[name];
    if (!Number.isFinite(at)) continue;
    found.push({ name, label, ms: Math.max(0, at - last) });
    last = Math.max(last, at);
  }
  return { stages: found, total: last };
}

export const LEGEND = POINTS.map(([name, label]) => ({ name, label }));
