import type { Endpoint } from '../config/address.ts';
import type { ConsulConfig } from '../config/config.ts';
import { NoHttp2 } from './connect.ts';
import { ConsulError } from './error.ts';
import { createHttp1 } from './http1.ts';
import { createHttp2 } from './http2.ts';
import { secureOptions } from './tls.ts';
import type { Transport } from './transport.ts';
import { ownConnection } from './wait.ts';
import { createWatches } from './watches.ts';

/**
 * Asks one address: over HTTP/2 where TLS is spoken and the server has HTTP/2,
 * else with a connection for each request.
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
  const watches = createWatches(replanned);
  const secure = endpoint.url.startsWith('https:') ? secureOptions(config.tls) : undefined;
  const http1 = createHttp1(endpoint, config, secure, watches);
  const ownWait = ownConnection(config.wait);
  const http2 = secure && createHttp2(endpoint, config, secure, watches);
  /** What is tried next. */
  let triesHttp2 = true;
  /** What has been spoken last. */
  let spokeHttp2 = false;

  function spoke(isHttp2: boolean): void {
    if (isHttp2 === spokeHttp2) return;
    spokeHttp2 = isHttp2;
    replanned();
  }

  return {
    name,
    get plan() {
      const { followed, left } = watches;
      return { followed, left, connections: spokeHttp2 ? http2?.connections : undefined };
    },
    async ask(request, signal) {
      if (http2 === undefined) return http1.ask(request, signal);
      if (triesHttp2) {
        try {
          const reply = await http2.ask(request, signal);
          spoke(true);
          return reply;
        } catch (error) {
          if (!(error instanceof NoHttp2)) throw error;
          triesHttp2 = false;
          http2.retire();
          spoke(false);
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
    waits: () => (spokeHttp2 && http2 ? http2.waits() : ownWait.now()),
    rouse: () => http2?.rouse(),
    close() {
      http1.close();
      http2?.close();
    },
  };
}

/** Of the errors, those after which there may be another server. */
const gone: ConsulError['code'][] = ['consul/unreachable', 'consul/closed'];
