import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';
import { Consul } from '../stack/consul.ts';
import { freePort } from '../stack/ports.ts';

/** How many services lie on a node: those that a check of the node concerns. */
const servicesOnNode = 1000;

/** Consul 1.8 takes no more in one transaction. */
const mostOperations = 64;

/** Services with instances of a check each, in a real Consul that speaks TLS too. */
export class WideConsul {
  readonly consul: Consul;
  /** `https://…` */
  readonly secure: string;
  readonly #ca: Buffer;
  readonly services: number;
  readonly instances: number;
  readonly #port: number;
  readonly #client = new Agent({ keepAlive: true, maxSockets: 8 });

  private constructor(
    consul: Consul,
    secure: string,
    ca: Buffer,
    { services, instances, port }: Size,
  ) {
    this.consul = consul;
    this.secure = secure;
    this.#ca = ca;
    this.services = services;
    this.instances = instances;
    this.#port = port;
  }

  static async start(
    folder: string,
    { cert, key }: { cert: string; key: string },
    size: Size,
  ): Promise<WideConsul> {
    const https = await freePort();
    const config = { cert_file: cert, key_file: key, ports: { https } };
    const consul = await Consul.start(folder, config);
    const wide = new WideConsul(consul, `https://127.0.0.1:${https}`, readFileSync(cert), size);
    await wide.#fill();
    return wide;
  }

  /** The node of an instance. */
  node(service: number, instance: number): string {
    return `node-${Math.floor(Math.min(service, this.services - 1) / servicesOnNode)}-${instance}`;
  }

  /** An instance as it is registered. Of each service the first serves, the others stand by as backups. */
  instance(service: number, instance: number, port = this.#port): object {
    return {
      Service: {
        Verb: 'set',
        Node: this.node(service, instance),
        Service: {
          ID: `s${service}-${instance}`,
          Service: `s${service}`,
          Address: instance === 0 ? '127.0.0.1' : `10.${instance}.${service >> 8}.${service & 255}`,
          Port: port,
          Tags: ['prod', 'v1'],
          Meta: instance === 0 ? {} : { backup: 'true' },
          Weights: { Passing: 1, Warning: 1 },
        },
      },
    };
  }

  check(service: number, instance: number, status: string): object {
    const Node = this.node(service, instance);
    const ServiceID = `s${service}-${instance}`;
    const check = { Node, CheckID: `check:${ServiceID}`, Name: 'alive', Status: status, ServiceID };
    return { Check: { Verb: 'set', Check: check } };
  }

  /** A check of a node, which concerns all services on it. */
  nodeCheck(node: string, status: string): object {
    const check = { Node: node, CheckID: 'node', Name: 'node', Status: status };
    return { Check: { Verb: 'set', Check: check } };
  }

  async #fill(): Promise<void> {
    const nodes = new Set<string>();
    const first: object[] = [];
    const operations: object[] = [];
    for (let service = 0; service < this.services; service += 1) {
      for (let instance = 0; instance < this.instances; instance += 1) {
        const node = this.node(service, instance);
        if (!nodes.has(node)) {
          const address = `10.0.${nodes.size >> 8}.${nodes.size & 255}`;
          first.push({ Node: { Verb: 'set', Node: { Node: node, Address: address } } });
          first.push(this.nodeCheck(node, 'passing'));
          nodes.add(node);
        }
        operations.push(this.instance(service, instance), this.check(service, instance, 'passing'));
      }
    }
    const batches: object[][] = [];
    for (let i = 0; i < first.length; i += mostOperations) {
      await this.write(first.slice(i, i + mostOperations));
    }
    for (let i = 0; i < operations.length; i += mostOperations) {
      batches.push(operations.slice(i, i + mostOperations));
    }
    const inTurn = async () => {
      for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
        await this.write(batch);
      }
    };
    await Promise.all(Array.from({ length: 4 }, inTurn));
  }

  /** One transaction. */
  async write(operations: object[]): Promise<void> {
    const sent = request(`${this.consul.address}/v1/txn`, { method: 'PUT', agent: this.#client });
    sent.end(JSON.stringify(operations));
    const [response] = await once(sent, 'response');
    let text = '';
    for await (const chunk of response) text += chunk;
    if (response.statusCode !== 200) throw new Error(`txn: ${response.statusCode} ${text}`);
  }

  /**
   * How long Consul takes to answer for all services when nobody reads what it
   * says, in s, over as many connections as the agent has.
   */
  async answeringTime(): Promise<number> {
    const sessions: ClientHttp2Session[] = [];
    for (let i = 0; i < Math.ceil(this.services / 248); i += 1) {
      const session = connect(this.secure, { ca: this.#ca });
      session.setMaxListeners(0);
      await once(session, 'connect');
      sessions.push(session);
    }
    const began = performance.now();
    await Promise.all(
      Array.from({ length: this.services }, async (_, i) => {
        const session = sessions[i % sessions.length] as ClientHttp2Session;
        const stream = session.request({ ':path': `/v1/health/service/s${i}?stale` });
        stream.resume();
        await once(stream, 'close');
      }),
    );
    const took = (performance.now() - began) / 1000;
    for (const session of sessions) session.destroy();
    return took;
  }

  async stop(): Promise<void> {
    this.#client.destroy();
    await this.consul.stop();
  }
}

interface Size {
  services: number;
  instances: number;
  /** Of every instance. */
  port: number;
}
