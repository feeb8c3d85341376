import { type ChildProcess, spawn } from 'node:child_process';
import { main } from './agent.ts';
import type { Consul } from './consul.ts';
import type { Nginx } from './nginx.ts';
import { isRunning, stop } from './process.ts';

/** What may be killed and started again while the demo runs. */
export interface Part {
  /** As one types it. */
  id: string;
  name: string;
  isUp(): boolean;
  /** Said when it has ended. */
  absence(): string;
  /** Comments and commands that kill it. */
  kills(): string;
  /** What else has happened since it was asked last. */
  news?(): string | undefined;
  up(): Promise<void>;
}

/** The agent, its log on our stdout. */
export function agentPart(config: string): Part & { stop(): Promise<void> } {
  let child: ChildProcess | undefined;
  return {
    id: 'agent',
    name: 'the agent',
    isUp: () => child !== undefined && isRunning(child),
    absence: () => 'The agent has ended. OpenResty serves on with the peers that it has.',
    kills: () => `  # kill the agent: requests go on\n  kill -9 ${child?.pid}`,
    async up() {
      const args = [main, 'run', '--config', config, '--log-format', 'pretty'];
      child = spawn(process.execPath, args, {
        detached: true,
        stdio: ['ignore', 'inherit', 'inherit'],
      });
    },
    async stop() {
      if (child !== undefined) await stop(child);
    },
  };
}

/** As at the start of a sentence. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function consulPart(consul: Consul): Part {
  return {
    id: 'consul',
    name: 'Consul',
    isUp: () => consul.isUp,
    absence: () => 'Consul has ended. The peers stay as they were last known.',
    kills: () => `  # kill Consul: requests go on\n  kill -9 ${consul.pid}`,
    up: () => consul.up(),
  };
}

export function nginxPart(nginx: Nginx): Part {
  let known = nginx.workers();
  return {
    id: 'openresty',
    name: 'OpenResty',
    isUp: () => nginx.isUp,
    absence() {
      const workers = nginx.orphans();
      return workers.length > 0
        ? `OpenResty's master has ended. Its workers ${workers.join(', ')} serve on, and take changes.`
        : 'OpenResty has ended. Requests are refused until it is started again; it then serves from its snapshot.';
    },
    kills: () => `  # kill a worker of OpenResty: what it was answering is lost, and nothing else
  kill -9 ${known[0]}

  # kill OpenResty's master: the workers serve on, until another takes over from
  # them; for that moment connections are refused
  kill -9 ${nginx.pid}

  # kill OpenResty as a whole: nobody listens any more
  kill -9 -${nginx.pid}`,
    news() {
      const workers = nginx.isUp ? nginx.workers() : [];
      const gone = known.filter((pid) => !workers.includes(pid));
      // Until the master has put another in its place, if it lives.
      if (gone.length === 0 || workers.length < known.length) return undefined;
      known = workers;
      return `Worker ${gone.join(', ')} of OpenResty has ended. Its master has started another: ${workers.join(', ')} serve.`;
    },
    async up() {
      // What they are answering they answer to the end, and listen no more:
      // docs/discoveries/killed-master.md.
      for (const pid of nginx.orphans()) process.kill(pid, 'SIGQUIT');
      await nginx.up();
      known = nginx.workers();
    },
  };
}
