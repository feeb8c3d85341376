import { createServer, type Server, type ServerResponse } from 'node:http';
import { close, listen } from '../stack/server.ts';

/** How a generation of Consul answers, as its API reference and its changelog say. */
export interface Generation {
  name: string;
  /** Blocking queries are answered by the streaming backend, which knows nothing of the leader (1.10). */
  isStreaming: boolean;
  /** `X-Consul-Default-ACL-Policy` (1.9). */
  saysPolicy: boolean;
  /** `Service.Ports` in place of `Port` (1.22). */
  hasPorts: boolean;
  /** A query is cut after so many ms of silence (`write_timeout`, a default of 1.22.4 alone). */
  cutAfter: number;
}

const oldest: Generation = {
  name: '1.8',
  isStreaming: false,
  saysPolicy: false,
  hasPorts: false,
  cutAfter: Number.POSITIVE_INFINITY,
};
const streaming = { ...oldest, name: '1.10', isStreaming: true, saysPolicy: true };
const ported = { ...streaming, name: '1.22.4', hasPorts: true };

/** 1.8 can be run and has been; the others are played by what is written of them. */
export const generations: Generation[] = [
  oldest,
  streaming,
  { ...ported, cutAfter: 30_000 },
  { ...ported, name: '2.0' },
];

interface Held {
  response: ServerResponse;
  index: number;
  timer: NodeJS.Timeout;
}

/**
 * Plays one service, `web`, at a Consul of some generation: it has an index,
 * holds blocking queries, and wakes them when its instances change. Its timers
 * are those of the process, so that a test may fake them.
 */
export class PlayedConsul {
  readonly generation: Generation;
  readonly #server: Server;
  #held: Held[] = [];
  #index = 10;
  #ports: number[] = [8080];
  address = '';
  /** Nothing but silence comes from it any more. */
  isDead = false;
  /** Every request so far. */
  readonly requests: URL[] = [];

  private constructor(generation: Generation) {
    this.generation = generation;
    this.#server = createServer((request, response) => {
      const url = new URL(request.url ?? '', this.address);
      this.requests.push(url);
      this.#ask(url, response);
    });
  }

  static async start(generation: Generation): Promise<PlayedConsul> {
    const played = new PlayedConsul(generation);
    played.address = `http://${await listen(played.#server)}`;
    return played;
  }

  /** How many queries it holds. */
  get held(): number {
    return this.#held.length;
  }

  /** Registers an instance at each of these ports of one node, and no other. */
  set(ports: number[]): void {
    this.#ports = ports;
    this.#index += 3;
    for (const { response, timer } of this.#held.splice(0)) {
      clearTimeout(timer);
      this.#answer(response, true);
    }
  }

  stop(): Promise<void> {
    return close(this.#server);
  }

  #ask(url: URL, response: ServerResponse): void {
    const index = Number(url.searchParams.get('index') ?? 0);
    if (!this.isDead && index < this.#index) {
      this.#answer(response, url.searchParams.has('index'));
      return;
    }
    const [, ms = '300000'] = /^(\d+)ms$/.exec(url.searchParams.get('wait') ?? '') ?? [];
    // The most that it adds: a sixteenth.
    const wait = this.isDead ? Number.POSITIVE_INFINITY : Number(ms) * (1 + 1 / 16);
    const isCut = this.generation.cutAfter < wait;
    const timer = setTimeout(
      () => {
        this.#held = this.#held.filter((one) => one !== held);
        if (isCut) response.destroy();
        else this.#answer(response, true);
      },
      Math.min(wait, this.generation.cutAfter),
    );
    const held = { response, index, timer };
    this.#held.push(held);
  }

  #answer(response: ServerResponse, isBlocking: boolean): void {
    const { isStreaming, saysPolicy } = this.generation;
    const isStreamed = isStreaming && isBlocking;
    response
      .writeHead(200, {
        'content-type': 'application/json',
        vary: 'Accept-Encoding',
        'x-consul-index': String(this.#index),
        'x-consul-knownleader': String(!isStreamed),
        'x-consul-lastcontact': '0',
        'x-consul-effective-consistency': 'stale',
        ...(isStreaming
          ? { 'x-consul-query-backend': isStreamed ? 'streaming' : 'blocking-query' }
          : {}),
        ...(saysPolicy ? { 'x-consul-default-acl-policy': 'allow' } : {}),
      })
      .end(JSON.stringify(this.#ports.map((port) => this.#entry(port))));
  }

  #entry(port: number) {
    const index = { CreateIndex: this.#index, ModifyIndex: this.#index };
    const ports = [
      { Name: 'admin', Port: port + 1, Default: false },
      { Name: 'http', Port: port, Default: true },
    ];
    const tagged = { lan_ipv4: '10.0.0.5', wan_ipv4: '10.0.0.5' };
    return {
      Node: {
        ID: '40e4a748-2192-161a-0510-9bf59fe950b5',
        Node: 'node-1',
        Address: '10.0.0.5',
        Datacenter: 'dc1',
        TaggedAddresses: tagged,
        Meta: { 'consul-network-segment': '' },
        ...index,
      },
      Service: {
        ID: `web-${port}`,
        Service: 'web',
        Tags: [],
        Address: '',
        TaggedAddresses: tagged,
        Meta: {},
        Port: this.generation.hasPorts ? 0 : port,
        ...(this.generation.hasPorts ? { Ports: ports } : {}),
        Weights: { Passing: 1, Warning: 1 },
        EnableTagOverride: false,
        Proxy: { Mode: '', MeshGateway: {}, Expose: {} },
        Connect: {},
        ...(this.generation.isStreaming ? { PeerName: '' } : {}),
        ...index,
      },
      Checks: [
        {
          Node: 'node-1',
          CheckID: 'serfHealth',
          Name: 'Serf Health Status',
          Status: 'passing',
          Notes: '',
          Output: 'Agent alive and reachable',
          ServiceID: '',
          ServiceName: '',
          ServiceTags: [],
          Type: '',
          Definition: {},
          ...index,
        },
      ],
    };
  }
}
