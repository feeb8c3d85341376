/** Does work when it is its turn. @returns what it returns @throws what it throws */
export type Turns = <T>(work: () => Promise<T>) => Promise<T>;

/** Lets so many go on at once; the others wait, the first of them goes next. */
export function createTurns(most: number): Turns {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async (work) => {
    if (running < most) running += 1;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}
