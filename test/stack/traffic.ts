import { Agent } from 'node:http';
import type { TestContext } from 'node:test';
import got from 'got';
import type { Stack } from './stack.ts';

/**
 * Sends requests to `web` until it is told to stop, or the test ends.
 *
 * @returns stops it; says what was no backend's answer, and how many were sent
 */
export function traffic(
  t: TestContext,
  { nginx }: Stack,
): () => Promise<{ wrong: unknown[]; count: number }> {
  const wrong: unknown[] = [];
  let count = 0;
  let isRunning = true;
  t.after(() => {
    isRunning = false;
  });
  // A connection each: nginx ends idle ones when it reloads.
  const agent = { http: new Agent({ keepAlive: false }) };
  const options = { agent, retry: { limit: 0 }, throwHttpErrors: false };
  const send = async () => {
    while (isRunning) {
      const answer = await got(`${nginx.url}/web/`, options).then(
        ({ statusCode, body }) => (statusCode === 200 ? body.trim() : statusCode),
        (error: Error) => error.message,
      );
      count += 1;
      if (!/^[a-z]+$/.test(String(answer))) wrong.push(answer);
    }
  };
  const done = Promise.all([send(), send()]);
  return async () => {
    isRunning = false;
    await done;
    return { wrong, count };
  };
}
