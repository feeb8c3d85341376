import { ask, type Stack } from './stack.ts';

/**
 * Sends requests to `web` one after the other until it is told to stop.
 *
 * @returns ends it, with every answer that was not `expected`
 */
export function traffic(stack: Stack, expected: string[]): () => Promise<(string | number)[]> {
  const wrong: (string | number)[] = [];
  let running = true;
  const done = (async () => {
    while (running) {
      const answer = await ask(stack.nginx, 'web');
      if (!expected.includes(String(answer))) wrong.push(answer);
    }
  })();
  return async () => {
    running = false;
    await done;
    return wrong;
  };
}
