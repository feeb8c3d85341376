import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';

/** What we have started and that has not ended. */
const children = new Set<ChildProcess>();

// A test or a benchmark that fails or is ended leaves nothing behind.
process.on('exit', () => {
  for (const child of children) child.kill('SIGTERM');
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // Who listens, too, stops the parts in order.
    if (process.listenerCount(signal) === 1) process.exit(1);
  });
}

/**
 * Starts a program in a process group of its own, so that a Ctrl-C in the
 * terminal reaches only us and we stop the parts in order.
 *
 * @param log file that takes its stdout and stderr
 */
export function start(
  command: string,
  args: string[],
  log: string,
  env: NodeJS.ProcessEnv = process.env,
): ChildProcess {
  const out = openSync(log, 'a');
  const child = spawn(command, args, { detached: true, stdio: ['ignore', out, out], env });
  closeSync(out);
  children.add(child);
  child.once('exit', () => children.delete(child));
  return child;
}

export function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

/** Whether the process lives, be it ours or not. */
export function exists(pid: number): boolean {
  try {
    // A zombie waiting for init still has an entry; its state is Z.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Sends the signal and waits until the process is gone; SIGKILL after 10 s. */
export async function stop(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (!isRunning(child)) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(timer);
}

/**
 * Repeats the check every 20 ms until it gives a value other than `false` or
 * `undefined`; what it throws counts as not yet.
 *
 * @throws Error naming `what` and the last failure when `seconds` have passed
 */
export async function until<T>(
  what: string,
  check: () => Promise<T> | T,
  seconds = 20,
): Promise<Exclude<T, false | undefined>> {
  const deadline = Date.now() + seconds * 1000;
  let last: unknown = 'never true';
  while (Date.now() < deadline) {
    try {
      const value = await check();
      if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`not within ${seconds} s: ${what} (${last})`);
}

/** The last lines of a log, to explain a part that does not come up. */
export function tail(log: string, lines = 15): string {
  return readFileSync(log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
}
