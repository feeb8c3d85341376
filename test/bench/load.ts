// A steady load of requests on kept connections, each sent when it is due
// whether or not others are slow; every fourth is a POST, which nginx sends to no
// second peer.
import { Agent, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Answered {
  /** When it was sent, as `performance.now` counts. */
  sent: number;
  /** From when it was due until its answer was whole, in ms. */
  ms: number;
  /** The body of a 200; undefined: it has failed. */
  body: string | undefined;
}

/**
 * @param every ms between two requests of one connection
 * @returns a function that ends it and says what came of each request
 */
export function startLoad(
  url: string,
  connections: number,
  every: number,
): () => Promise<Answered[]> {
  const all: Answered[] = [];
  let isEnded = false;

  async function run(i: number): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const began = performance.now() + (i * every) / connections;
    for (let k = 0; !isEnded; k += 1) {
      const due = began + k * every;
      if (due > performance.now()) await sleep(due - performance.now());
      const sent = performance.now();
      const body = await ask(url, k % 4 === 3 ? 'POST' : 'GET', agent);
      all.push({ sent, ms: performance.now() - due, body });
    }
    agent.destroy();
  }

  const runs = Array.from({ length: connections }, (_, i) => run(i));
  return async () => {
    isEnded = true;
    await Promise.all(runs);
    return all;
  };
}

function ask(url: string, method: string, agent: Agent): Promise<string | undefined> {
  return new Promise((resolve) => {
    const sent = request(url, { method, agent, timeout: 10_000 }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('close', () => {
        resolve(response.complete && response.statusCode === 200 ? text.trim() : undefined);
      });
    });
    sent.on('timeout', () => sent.destroy());
    sent.on('error', () => resolve(undefined));
    sent.end();
  });
}
