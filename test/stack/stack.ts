import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import got from 'got';
import { Agent, type Ended, reloadless } from './agent.ts';
import { Consul } from './consul.ts';
import { temporaryFolder } from './folder.ts';
import { Nginx, type NginxOptions } from './nginx.ts';

/** Consul, an nginx that serves `/NAME/` by the upstream NAME, and the agent's command line for both. */
export interface Stack {
  folder: string;
  consul: Consul;
  nginx: Nginx;
  /** Flags that name both and nginx's snapshot. */
  flags: string[];
  /** Starts an agent that ends with the stack. */
  agent(...args: string[]): Agent;
  /** Runs one command of the agent with the flags. */
  run(command: string, ...args: string[]): Promise<Ended>;
  /** Writes a configuration file, a new one unless it is given. @returns its path */
  configure(config: object, path?: string): string;
  stop(): Promise<void>;
}

/** What serves `/NAME/` by the upstream NAME. */
export const perName: NginxOptions['http'] = ({ port }) => `
    upstream any {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
        keepalive 64;
    }
    server {
        listen 127.0.0.1:${port};
        location = / { return 204; }
        location ~ ^/([^/]+)/ {
            set $reloadless_upstream $1;
            access_by_lua_block { require("reloadless").access() }
            proxy_pass http://any;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`;

/** @param options of nginx, for other than the usual @param acl Consul's configuration, with a token */
export async function startStack(
  options: Partial<NginxOptions> = {},
  { config, token }: { config?: object; token?: string } = {},
): Promise<Stack> {
  const { folder, remove } = temporaryFolder();
  const consul = await Consul.start(join(folder, 'consul'), config, token);
  const nginx = await startNginx(join(folder, 'nginx'), options).catch(async (error) => {
    await consul.stop();
    throw error;
  });
  const flags = [
    ...['--consul', consul.address, '--openresty', nginx.admin],
    ...['--snapshot', nginx.snapshot],
  ];
  const agents: Agent[] = [];
  let files = 0;
  return {
    folder,
    consul,
    nginx,
    flags,
    agent(...args) {
      const log = join(folder, `agent-${agents.length}.log`);
      const agent = Agent.start(log, [...flags, ...args]);
      agents.push(agent);
      return agent;
    },
    run: (command, ...args) => reloadless([command, ...flags, ...args]),
    configure(content, path = join(folder, `reloadless-${files}.yml`)) {
      files += 1;
      writeFileSync(path, JSON.stringify(content));
      return path;
    },
    async stop() {
      for (const agent of agents) await agent.stop();
      await nginx.stop();
      await consul.stop();
      remove();
    },
  };
}

function startNginx(folder: string, options: Partial<NginxOptions>): Promise<Nginx> {
  return Nginx.start(folder, { http: perName, ...options });
}

export interface Live {
  instance: string;
  version: number;
  source: string;
  agents: Record<string, { pid: number; waiting?: { pid: number } }>;
  upstreams: Record<string, { version: number; owner?: string; peers: Record<string, LivePeer> }>;
}

export interface LivePeer {
  weight: number;
  state: string;
  id?: string;
  backup?: boolean;
}

/** What `/v1/status` says. */
export async function live(nginx: Nginx): Promise<Live> {
  return nginx.http('v1/status').json();
}

/** The addresses of an upstream's peers, in order; undefined when there is no such upstream. */
export async function peers(nginx: Nginx, name: string): Promise<string[] | undefined> {
  const { upstreams } = await live(nginx);
  const upstream = upstreams[name];
  return upstream === undefined ? undefined : Object.keys(upstream.peers).sort();
}

/** One request. @returns the body, or the status when it is not 200 */
export async function ask(nginx: Nginx, name: string): Promise<string | number> {
  const answer = await got(`${nginx.url}/${name}/`, {
    retry: { limit: 0 },
    throwHttpErrors: false,
    timeout: { request: 5000 },
  });
  return answer.statusCode === 200 ? answer.body.trim() : answer.statusCode;
}
