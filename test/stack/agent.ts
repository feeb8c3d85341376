import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkout } from './install.mjs';
import { start, stop } from './process.ts';
import { tokenFile } from './token.ts';

export const main = join(checkout, 'dist/main.js');

/** Our own environment, without what would name another Consul, with the token of our nginx. */
export function environment(extra: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('CONSUL_'));
  return { ...Object.fromEntries(own), RELOADLESS_TOKEN_FILE: tokenFile, ...extra };
}

/** The built agent, running until it is stopped. */
export class Agent {
  readonly #log: string;
  readonly #args: string[];
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess;

  private constructor(log: string, args: string[], env: NodeJS.ProcessEnv) {
    this.#log = log;
    this.#args = [main, 'run', '--log-format', 'json', '--log-level', 'debug', ...args];
    this.#env = environment(env);
    this.#child = start(process.execPath, this.#args, log, this.#env);
  }

  /** @param log file that takes what it writes @param args of `reloadless run` */
  static start(log: string, args: string[], env: NodeJS.ProcessEnv = {}): Agent {
    return new Agent(log, args, env);
  }

  /** Starts it again as it was. */
  up(): void {
    this.#child = start(process.execPath, this.#args, this.#log, this.#env);
  }

  /** What it has written so far. */
  get log(): string {
    return existsSync(this.#log) ? readFileSync(this.#log, 'utf8') : '';
  }

  /** The messages of its log lines. */
  get messages(): string[] {
    const lines = this.log.split('\n').filter((line) => line.startsWith('{'));
    return lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get exitCode(): number | null {
    return this.#child.exitCode;
  }

  /** SIGHUP: reads its configuration again. */
  hup(): void {
    this.#child.kill('SIGHUP');
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await stop(this.#child, signal);
  }
}

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs one command of `reloadless` to its end. */
export async function reloadless(args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const child = spawn(process.execPath, [main, ...args], { env: environment(env) });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, stdout, stderr };
}
