import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import got from 'got';
import { findConsul } from './install.mjs';
import { freePort } from './ports.ts';
import { isRunning, start, stop, tail, until } from './process.ts';

export interface Instance {
  name: string;
  id: string;
  address: string;
  port: number;
  tags?: string[];
  meta?: Record<string, string>;
  weights?: { Passing: number; Warning: number };
  /** `http`: Consul polls `/health` of the instance each second; else a TTL check set by `health`. */
  check?: 'http';
}

/** A single Consul server on loopback whose data outlives a restart. */
export class Consul {
  readonly #folder: string;
  readonly #args: string[];
  #child: ReturnType<typeof start> | undefined;
  readonly address: string;
  readonly http;

  private constructor(folder: string, httpPort: number, args: string[], token: string | undefined) {
    this.#folder = folder;
    this.#args = args;
    this.address = `http://127.0.0.1:${httpPort}`;
    this.http = got.extend({
      prefixUrl: `${this.address}/v1/`,
      responseType: 'json',
      retry: { limit: 0 },
      timeout: { request: 10_000 },
      headers: token === undefined ? {} : { 'x-consul-token': token },
    });
  }

  /**
   * Starts a server and waits until it leads.
   *
   * @param folder a folder of its own, made when it is not there
   * @param extra more of Consul's configuration; `token` is sent with our own calls
   */
  static async start(folder: string, extra: object = {}, token?: string): Promise<Consul> {
    const { ports, ...more } = extra as { ports?: object };
    const [http, rpc, lan] = [await freePort(), await freePort(), await freePort()];
    const config = {
      server: true,
      bootstrap_expect: 1,
      node_name: 'local',
      bind_addr: '127.0.0.1',
      client_addr: '127.0.0.1',
      data_dir: join(folder, 'data'),
      ports: { http, server: rpc, serf_lan: lan, serf_wan: -1, dns: -1, ...ports },
      performance: { raft_multiplier: 1 },
      leave_on_terminate: false,
      disable_update_check: true,
      ui: true,
      ...more,
    };
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'consul.json');
    writeFileSync(file, JSON.stringify(config));
    const consul = new Consul(folder, http, ['agent', '-config-file', file], token);
    try {
      await consul.up();
    } catch (error) {
      await consul.stop();
      throw error;
    }
    return consul;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get isUp(): boolean {
    return this.#child !== undefined && isRunning(this.#child);
  }

  /** Starts the server (again) and waits until it leads. */
  async up(): Promise<void> {
    const bin = findConsul();
    if (bin === undefined) throw new Error('no consul: run node test/stack/install.mjs serve');
    const log = join(this.#folder, 'consul.log');
    const child = start(bin, this.#args, log);
    this.#child = child;
    await until('Consul leads', async () => {
      if (!isRunning(child)) throw new Error(`consul ended:\n${tail(log)}`);
      const leader: string = await this.http('status/leader').json();
      const nodes: unknown[] = await this.http('catalog/nodes').json();
      return leader !== '' && nodes.length > 0;
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child !== undefined) await stop(this.#child, signal);
  }

  async register(instance: Instance): Promise<void> {
    const check =
      instance.check === 'http'
        ? {
            HTTP: `http://${instance.address}:${instance.port}/health`,
            Interval: '1s',
            Timeout: '1s',
          }
        : { TTL: '24h' };
    await this.http.put('agent/service/register', {
      json: {
        Name: instance.name,
        ID: instance.id,
        Address: instance.address,
        Port: instance.port,
        Tags: instance.tags ?? [],
        Meta: instance.meta ?? {},
        Weights: instance.weights ?? { Passing: 1, Warning: 1 },
        Check: { CheckID: `check:${instance.id}`, Status: 'passing', ...check },
      },
    });
  }

  async deregister(id: string): Promise<void> {
    await this.http.put(`agent/service/deregister/${encodeURIComponent(id)}`);
  }

  /** Sets the state of the instance's TTL check. */
  async health(id: string, status: 'passing' | 'warning' | 'critical'): Promise<void> {
    await this.http.put(`agent/check/update/${encodeURIComponent(`check:${id}`)}`, {
      json: { Status: status, Output: status },
    });
  }

  /** Stores a value of KV. */
  async store(key: string, value: string): Promise<void> {
    await this.http.put(`kv/${key}`, { body: value });
  }

  /** Takes a key out of KV, or all that begin with it. */
  async drop(key: string, all = false): Promise<void> {
    await this.http.delete(`kv/${key}${all ? '?recurse' : ''}`);
  }

  async maintenance(id: string, enable: boolean): Promise<void> {
    await this.http.put(`agent/service/maintenance/${encodeURIComponent(id)}`, {
      searchParams: { enable },
    });
  }
}
