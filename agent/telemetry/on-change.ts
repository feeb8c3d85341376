import { spawn } from 'node:child_process';
import type { OnChange } from '../config/config.ts';
import { type Log, reason } from './log.ts';

/** A merge patch that a target has taken. */
interface Applied {
  target: string;
  patch: { upstreams: Record<string, unknown> };
}

/** Runs the command of `on_change`. */
export interface ChangeCommand {
  /** Nobody waits for it: what is applied while it runs is told to the next run, all at once. */
  applied(change: Applied): void;
  stop(): void;
}

/** What the system takes as one variable of the environment is 128 KiB. */
const largest = 65_536;
/** Of what a failed command has said, in bytes. */
const mostSaid = 500;

/**
 * Runs a command after each applied change, one at a time. It is never given to
 * a shell, and does not get Consul's token.
 *
 * @param options what is configured now; undefined: nothing is run
 */
export function createChangeCommand(options: () => OnChange | undefined, log: Log): ChangeCommand {
  let upstreams = new Set<string>();
  let changes: string[] = [];
  /** Of the changes; beyond the largest none is kept. */
  let size = 0;
  let end: (() => void) | undefined;
  let isStopped = false;

  function take(): NodeJS.ProcessEnv {
    const { CONSUL_HTTP_TOKEN: _, ...env } = process.env;
    const names = [...upstreams].join(' ');
    if (names.length <= largest) env.RELOADLESS_UPSTREAMS = names;
    if (size <= largest) env.RELOADLESS_CHANGES = `[${changes.join()}]`;
    upstreams = new Set();
    changes = [];
    size = 0;
    return env;
  }

  function run({ command, timeout }: OnChange): void {
    const [file = '', ...args] = command;
    const started = performance.now();
    // A group of its own, so that what it has started ends with it.
    const child = spawn(file, args, {
      env: take(),
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (chunk) => {
      said = `${said}${chunk}`.slice(-mostSaid);
    });
    const kill = (signal: NodeJS.Signals) => {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    };
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      kill('SIGKILL');
    }, timeout);
    end = () => kill('SIGTERM');

    function ended(why: string | undefined): void {
      clearTimeout(timer);
      end = undefined;
      // What it has left behind may hold the pipe open.
      child.stderr.destroy();
      const ms = Math.round(performance.now() - started);
      if (why === undefined) log.debug({ ms }, `on_change: ${file} has run`);
      else log.error({ ms, stderr: said.trim() }, `on_change: ${file} ${why}`);
      next();
    }

    child.once('error', (error) => ended(`does not run: ${reason(error)}`));
    child.once('exit', (code, signal) => {
      if (isLate) ended(`was killed: it took longer than ${timeout / 1000} s`);
      else ended(code === 0 ? undefined : `failed: ${signal ?? `exit code ${code}`}`);
    });
  }

  function next(): void {
    const configured = options();
    if (end !== undefined || isStopped || upstreams.size === 0) return;
    if (configured === undefined) take();
    else run(configured);
  }

  return {
    applied(change) {
      if (options() === undefined) return;
      for (const name of Object.keys(change.patch.upstreams)) upstreams.add(name);
      if (size <= largest) {
        const text = JSON.stringify(change);
        size += text.length + 1;
        changes.push(text);
      }
      next();
    },
    stop() {
      isStopped = true;
      end?.();
    },
  };
}
