// How far into a reply's text its voice has come. Pure: text, sentences and milliseconds in, an index out.

const MS_A_CHARACTER = 65; // a common rate of speech, for the sentence whose end is not known yet

const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");

/** Where `sentence` lies in `text`, at or after `from`: [start, end), or null. Spaces and marks need not agree, because
 * what is spoken was tidied for the voice. */
export function locate(text, sentence, from = 0) {
  const wanted = plain(sentence);
  if (!wanted) return null;
  const letters = [];
  for (let i = from; i < text.length; i++) for (const each of plain(text[i])) letters.push([each, i]);
  const at = letters.map(([each]) => each).join("").indexOf(wanted);
  if (at < 0) return null;
  let end = letters[at + wanted.length - 1][1] + 1;
  while (end < text.length && /[^\s\p{L}\p{N}]/u.test(text[end])) end++; // the full stop belongs to it
  return [letters[at][1], end];
}

/** How many characters of `reply.text` have sounded `reply.ms` into it, to the end of a word. */
export function spokenUntil({ text, sentences, ms, audioMs }) {
  if (ms <= 0) return 0;
  const at = sentences.findLastIndex((each) => each.startMs <= ms);
  if (at < 0) return 0;
  const { from, to, startMs } = sentences[at];
  const guess = startMs + (to - from) * MS_A_CHARACTER;
  const endMs = sentences[at + 1]?.startMs ?? audioMs ?? Math.max(guess, startMs + 1);
  const share = Math.min(1, (ms - startMs) / Math.max(1, endMs - startMs));
  return wordEnd(text, from + Math.round(share * (to - from)), to);
}

function wordEnd(text, at, most) {
  if (at <= 0 || /\s/.test(text[at - 1] ?? " ")) return at;
  while (at < most && !/\s/.test(text[at])) at++;
  return at;
}
