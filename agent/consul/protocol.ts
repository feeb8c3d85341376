import type { Endpoint } from '../config/address.ts';
import { type ConsulConfig, spareConnections } from '../config/config.ts';
import { NoHttp2 } from './connect.ts';
import { createCrowd } from './crowd.ts';
import { ConsulError } from './error.ts';
import { createHttp1 } from './http1.ts';
import { createHttp2 } from './http2.ts';
import { secureOptions } from './tls.ts';
import type { Transport } from './transport.ts';
import { ownConnection } from './wait.ts';
import { createWatches } from './watches.ts';

/**
 * How long there is a crowd at least, by the wait of a query: one that was ended
 * keeps its place in Consul until that is over, with its jitter.
 */
const crowdedFor = 1.25;

/**
 * Asks one address: over HTTP/2 where TLS is spoken and the server has HTTP/2,
 * else with a connection for each request, unless there are too many of them.
 *
 * @param replanned is called when its plan is another
 * @throws ConfigError when a TLS file cannot be used
 */
export function createTransport(
  endpoint: Endpoint,
  config: ConsulConfig,
  replanned: () => void,
): Transport {
  const name = `Consul at ${endpoint.name}`;
  const most = config.max_connections - spareConnections;
  const ownWait = ownConnection(config.wait);
  const crowd = createCrowd(most, ownWait.now().most * crowdedFor, () => {
    if (crowd.isCrowded) http1.release();
    replanned();
  });
  const watches = createWatches(() => {
    crowd.count(watches.followed);
    replanned();
  });
  const secure = endpoint.url.startsWith('https:') ? secureOptions(config.tls) : undefined;
  const http1 = createHttp1(endpoint, config, secure, watches);
  const http2 = secure && createHttp2(endpoint, config, secure, watches);
  /** What is tried next. */
  let triesHttp2 = true;
  /** What has been spoken last; undefined: nothing as yet. */
  let speaks: 'http1' | 'http2' | undefined = http2 === undefined ? 'http1' : undefined;

  function spoke(protocol: typeof speaks): void {
    if (protocol === speaks) return;
    speaks = protocol;
    replanned();
  }

  return {
    name,
    get plan() {
      const { followed, left } = watches;
      const connections = speaks === 'http2' ? http2?.connections : undefined;
      return { followed, left, connections, isCrowded: speaks === 'http1' && crowd.isCrowded };
    },
    async ask(request, signal) {
      if (http2 === undefined) return http1.ask(request, signal);
      if (triesHttp2) {
        try {
          const reply = await http2.ask(request, signal);
          spoke('http2');
          return reply;
        } catch (error) {
          if (!(error instanceof NoHttp2)) throw error;
          triesHttp2 = false;
          http2.retire();
          spoke('http1');
        }
      }
      try {
        return await http1.ask(request, signal);
      } catch (error) {
        // What comes back there may speak HTTP/2.
        if (error instanceof ConsulError && gone.includes(error.code)) triesHttp2 = true;
        throw error;
      }
    },
    waits: () => (speaks === 'http2' && http2 ? http2.waits() : ownWait.now()),
    rouse: () => http2?.rouse(),
    close() {
      crowd.stop();
      http1.close();
      http2?.close();
    },
  };
}

/** Of the errors, those after which there may be another server. */
const gone: ConsulError['code'][] = ['consul/unreachable', 'consul/closed'];
