import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { Nginx, type NginxOptions } from '../stack/nginx.ts';

/** What is counted: an nginx of one worker, made ready. */
export interface Counted {
  options: NginxOptions;
  prepare: (nginx: Nginx) => Promise<void>;
}

const few = 6_000;
const many = 18_000;
// So that peers have several requests at a time, as under load.
const connections = 32;

async function request(url: string, agent: Agent): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    get(url, { agent }, (response) => {
      response.resume().once('end', resolve);
      if (response.statusCode !== 200) reject(new Error(`${url}: ${response.statusCode}`));
    }).once('error', reject);
  });
}

/** Sends requests, on each connection one after the other, each with another key to hash. */
async function send(url: string, requests: number): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  let key = 0;
  const one = async () => {
    for (let i = 0; i < requests / connections; i += 1) {
      key += 1;
      await request(`${url}/${key}`, agent);
    }
  };
  await Promise.all(Array.from({ length: connections }, one));
  agent.destroy();
}

/** The instructions of the process that ran the most, in one run of nginx. */
async function count(folder: string, counted: Counted, requests: number): Promise<number> {
  const counts = join(folder, 'counts');
  mkdirSync(counts, { recursive: true });
  // The worker writes its own, as nobody.
  chmodSync(counts, 0o777);
  const wrapper = ['valgrind', '--tool=callgrind', `--callgrind-out-file=${counts}/%p`];
  const nginx = await Nginx.start(folder, { ...counted.options, wrapper });
  try {
    await counted.prepare(nginx);
    await send(nginx.url, requests);
  } finally {
    await nginx.stop('SIGQUIT');
  }
  const totals = readdirSync(counts).map((file) =>
    Number(/^totals: (\d+)/m.exec(readFileSync(join(counts, file), 'utf8'))?.[1] ?? 0),
  );
  return Math.max(...totals);
}

/** @returns whether this machine can count them */
export function canCount(): boolean {
  return existsSync('/usr/bin/valgrind');
}

/**
 * User-space instructions of one request, by callgrind: the difference between
 * a long and a short run, so that the start and the compiling of Lua cancel out.
 *
 * @param folder a folder of its own
 */
export async function instructionsPerRequest(folder: string, counted: Counted): Promise<number> {
  const short = await count(join(folder, 'few'), counted, few);
  const long = await count(join(folder, 'many'), counted, many);
  return (long - short) / (many - few);
}
