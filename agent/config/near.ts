/** A word farther away, in letters, is another word. */
const farthest = 2;

/** @returns the word that was meant by a misspelt one; undefined: none is near */
export function nearest(misspelt: string, words: string[]): string | undefined {
  const [near] = words
    .map((word) => ({ word, away: distance(misspelt, word) }))
    .filter(({ word, away }) => away > 0 && away <= farthest && away < word.length / 2)
    .sort((a, b) => a.away - b.away);
  return near?.word;
}

/** How many letters must be put in, taken out or replaced (Levenshtein's). */
function distance(from: string, to: string): number {
  let last = Array.from({ length: to.length + 1 }, (_, i) => i);
  [...from].forEach((letter, i) => {
    const row = [i + 1];
    [...to].forEach((other, j) => {
      const kept = (last[j] ?? 0) + Number(letter !== other);
      row.push(Math.min(kept, (last[j + 1] ?? 0) + 1, (row[j] ?? 0) + 1));
    });
    last = row;
  });
  return last.at(-1) ?? 0;
}
