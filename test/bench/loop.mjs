// What the loops of the benchmarks have in common: a question to Consul by Node
// alone, and from its answer to a merge patch, without a check of anything.

import { Agent, request } from 'node:http';
import { connect, constants } from 'node:http2';

/** Fewer than Consul's HTTP/2 takes on one connection. */
const streams = 240;

/**
 * @typedef {{ text: string, headers: import('node:http').IncomingHttpHeaders }} Answer
 * @typedef {{ ask: (path: string) => Promise<Answer>, connections: () => number, close: () => void }} Asker
 */

/**
 * @param {import('node:stream').Readable} body
 * @param {(text: string) => void} done
 */
function collect(body, done) {
  /** @type {Buffer[]} */
  const chunks = [];
  body.on('data', (chunk) => chunks.push(chunk));
  body.on('end', () => done(Buffer.concat(chunks).toString()));
}

/**
 * One request by node:http.
 *
 * @param {string} url
 * @param {import('node:http').RequestOptions} options
 * @param {string} [body]
 * @returns {Promise<Answer>}
 */
export function send(url, options, body) {
  return new Promise((resolve, reject) => {
    const sent = request(url, options, (response) => {
      collect(response, (text) => resolve({ text, headers: response.headers }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/**
 * Asks by GET: over HTTP/2 where the address is of https, else with a connection
 * for each question that waits.
 *
 * @param {string} address
 * @param {string | Buffer} [ca]
 * @returns {Asker}
 */
export function createAsker(address, ca) {
  return address.startsWith('https:') ? createHttp2Asker(address, ca) : createHttp1Asker(address);
}

/** @param {string} address @returns {Asker} */
function createHttp1Asker(address) {
  const agent = new Agent({ keepAlive: true });
  return {
    ask: (path) => send(`${address}${path}`, { agent }),
    connections: () =>
      [agent.sockets, agent.freeSockets].flatMap((by) => Object.values(by).flat()).length,
    close: () => agent.destroy(),
  };
}

/** @param {string} address @param {string | Buffer | undefined} ca @returns {Asker} */
function createHttp2Asker(address, ca) {
  /** @type {{ session: import('node:http2').ClientHttp2Session, open: number }[]} */
  const sessions = [];
  function roomy() {
    const found = sessions.find(({ open }) => open < streams);
    if (found !== undefined) return found;
    const one = { session: connect(address, ca === undefined ? {} : { ca }), open: 0 };
    sessions.push(one);
    return one;
  }
  return {
    ask(path) {
      const one = roomy();
      one.open += 1;
      return new Promise((resolve, reject) => {
        const stream = one.session.request({ [constants.HTTP2_HEADER_PATH]: path });
        stream.on('error', reject);
        stream.on('close', () => {
          one.open -= 1;
        });
        stream.on('response', (headers) => {
          collect(stream, (text) => resolve({ text, headers }));
        });
      });
    },
    connections: () => sessions.length,
    close: () => sessions.forEach(({ session }) => void session.destroy()),
  };
}

/**
 * @param {string} service
 * @param {string} owner
 * @returns {(entries: any[]) => object | undefined} takes each answer; gives the
 *   patch that it makes, or undefined where nothing is other than before
 */
export function createPatcher(service, owner) {
  let had = '';
  /** @type {string[]} */
  let addresses = [];
  return (entries) => {
    /** @type {Record<string, object | null>} */
    const peers = {};
    for (const { Service } of entries) {
      peers[`${Service.Address}:${Service.Port}`] = {
        weight: Service.Weights.Passing,
        id: Service.ID,
      };
    }
    const has = JSON.stringify(peers);
    if (has === had) return undefined;
    had = has;
    const now = Object.keys(peers);
    for (const address of addresses) peers[address] ??= null;
    addresses = now;
    return { upstreams: { [service]: { owner, peers } } };
  };
}
