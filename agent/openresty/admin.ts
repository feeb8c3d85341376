import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import got, { type Got, RequestError } from 'got';
import { z } from 'zod';
import type { TargetConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import type { Document, Upstream } from '../state/document.ts';
import type { DocumentPatch, UpstreamPatch } from '../state/parts.ts';
import { reason } from '../telemetry/log.ts';
import { brief } from '../util/text.ts';
import { readToken } from '../util/token-file.ts';
import { AdminError, codeOf } from './error.ts';
import type { Identity } from './lease.ts';
import type { Fault } from './left-out.ts';

/** The document of a target and the ETag that it had. */
export interface Mirror {
  document: Document;
  /** `"<instance>.<version>"` */
  etag: string;
}

export interface AdminClient {
  /** How to call the target in a message. */
  readonly name: string;
  /** Of the last answer: the instance that gave it and, while nginx is being upgraded, the other. */
  readonly instances: string[];
  /** @returns what the target warned of in its last answer, if anything */
  warning(): string | undefined;
  /**
   * @param etag of the document that we have
   * @returns undefined when it still is the one
   */
  get(etag: string | undefined, signal: AbortSignal): Promise<Mirror | undefined>;
  /** @returns the new ETag */
  patch(patch: DocumentPatch, etag: string, signal: AbortSignal): Promise<string>;
  /** @returns one upstream; undefined when there is none of that name */
  upstream(name: string, signal: AbortSignal): Promise<Upstream | undefined>;
  /**
   * Patches one upstream, whatever the ETag is.
   *
   * @returns why a restart of nginx loses what it says by hand; undefined: none does, or that is not kept
   */
  patchUpstream(
    name: string,
    patch: UpstreamPatch,
    signal: AbortSignal,
  ): Promise<string | undefined>;
  status(signal: AbortSignal): Promise<unknown>;
  /** Costs the least, for the sake of `instances`. */
  ping(signal: AbortSignal): Promise<void>;
  takeLease(owner: string, identity: Identity, signal: AbortSignal): Promise<Taken>;
  /** Gives the lease back if it is that of this id. */
  dropLease(owner: string, id: string, signal: AbortSignal): Promise<void>;
  /** @returns the agent that has the lease of the owner, if there is one */
  holder(owner: string, signal: AbortSignal): Promise<Identity | undefined>;
  /** Uses the token that the file has now. @throws Error when it cannot be read */
  readToken(): void;
  /** The next call makes a new connection. */
  reconnect(): void;
  /** Another client of the same target, on a connection of its own. */
  another(): AdminClient;
  close(): void;
}

/** What a target answers to one who wants the lease of an owner. */
export interface Taken {
  /** The agent of another configuration that has it, if there is one. */
  holder?: Identity;
  /** Of the target's document; absent where an older Reloadless answers. */
  etag?: string | undefined;
}

interface Answer {
  status: number;
  etag: string | undefined;
  /** Of the table, where the answer is not about it. */
  tableEtag: string | undefined;
  /** Why what is said by hand is not on nginx's disk. */
  unsaved: string | undefined;
  body: string;
}

/**
 * Speaks the admin API of one OpenResty. Every call throws AdminError, and is
 * made once more when its connection was reset. When the token is refused, its file is read again, and
 * another one is tried at once.
 *
 * @throws Error when the token file cannot be read
 */
export function createAdminClient(config: TargetConfig): AdminClient {
  const { token_file } = config;
  return createClient(config, token_file === undefined ? undefined : readToken(token_file));
}

function createClient(config: TargetConfig, firstToken: string | undefined): AdminClient {
  const { token_file, endpoint } = config;
  const { name, url, socketPath } = endpoint;
  const pool = { keepAlive: true, maxSockets: 1 };
  const agents = {
    // got itself takes a socket's path in the URL alone, which changes many a path.
    http: new HttpAgent({ ...pool, ...(socketPath === undefined ? {} : { socketPath }) }),
    https: new HttpsAgent(pool),
  };
  const http: Got = got.extend({
    agent: agents,
    retry: { limit: 0 },
    timeout: { connect: 2_000, request: 10_000 },
    decompress: false,
    followRedirect: false,
    throwHttpErrors: false,
  });
  const who = `OpenResty at ${name}`;
  let token = firstToken;
  let instances: string[] = [];
  let warning: string | undefined;

  function refreshToken(): void {
    if (token_file !== undefined) token = readToken(token_file);
  }

  async function call(
    method: 'GET' | 'PATCH' | 'PUT' | 'DELETE',
    path: string,
    signal: AbortSignal,
    headers: Record<string, string> = {},
    body?: string,
  ): Promise<Answer> {
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const plain = { method, signal, headers: { ...headers, ...authorization } };
    const options = body === undefined ? plain : { ...plain, body };
    try {
      // A worker that ends closes the connections that wait for a request. All
      // calls may be made twice, a write for the sake of its If-Match.
      const answer = await http(`${url}${path}`, options).catch((error) => {
        if (error.code !== 'ECONNRESET') throw error;
        return http(`${url}${path}`, options);
      });
      const { statusCode: status, headers: received } = answer;
      instances = String(received['reloadless-instances'] ?? '')
        .split(' ')
        .filter(Boolean);
      const warned = received['reloadless-warning'];
      warning = typeof warned === 'string' ? warned : undefined;
      if (status === 401 || status === 403) {
        const refused = token;
        refreshToken();
        if (token !== refused) return call(method, path, signal, headers, body);
      }
      const table = received['reloadless-table'];
      const tableEtag = typeof table === 'string' ? table : undefined;
      const saved = received['reloadless-saved'];
      const unsaved = typeof saved === 'string' ? saved.replace(/^no; /, '') : undefined;
      return { status, etag: received.etag, tableEtag, unsaved, body: answer.body };
    } catch (error) {
      throw asAdminError(error, who);
    }
  }

  function close(): void {
    agents.http.destroy();
    agents.https.destroy();
  }

  return {
    name,
    get instances() {
      return instances;
    },
    warning: () => warning,
    async get(etag, signal) {
      const condition = etag === undefined ? {} : { 'if-none-match': etag };
      const answer = await call('GET', '/v1/upstreams', signal, condition);
      if (answer.status === 304 && etag !== undefined) return undefined;
      const document = expectJson(answer, who);
      if (!isDocument(document) || answer.etag === undefined) {
        throw unusable(`${who}: this is not the admin endpoint of Reloadless`);
      }
      return { document, etag: answer.etag };
    },
    async patch(patch, etag, signal) {
      const headers = { 'content-type': 'application/merge-patch+json', 'if-match': etag };
      const answer = await call('PATCH', '/v1/upstreams', signal, headers, JSON.stringify(patch));
      expectJson(answer, who);
      if (answer.etag === undefined) throw unusable(`${who}: no ETag`);
      return answer.etag;
    },
    async upstream(name, signal) {
      const answer = await call('GET', `/v1/upstreams/${name}`, signal);
      if (answer.status === 404) return undefined;
      const upstream = expectJson(answer, who);
      if (!isUpstream(upstream)) {
        throw unusable(`${who}: this is not the admin endpoint of Reloadless`);
      }
      return upstream;
    },
    async patchUpstream(name, patch, signal) {
      const headers = { 'content-type': 'application/merge-patch+json' };
      const path = `/v1/upstreams/${name}`;
      const answer = await call('PATCH', path, signal, headers, JSON.stringify(patch));
      expectJson(answer, who);
      return answer.unsaved;
    },
    async status(signal) {
      return expectJson(await call('GET', '/v1/status', signal), who);
    },
    async ping(signal) {
      await call('GET', '/v1', signal);
    },
    async takeLease(owner, identity, signal) {
      const headers = { 'content-type': 'application/json' };
      const body = JSON.stringify(identity);
      const answer = await call('PUT', leasePath(owner), signal, headers, body);
      if (answer.status === 204) return { etag: answer.tableEtag };
      if (answer.status !== 409) throw failure(answer, who);
      const { holder } = (parse(answer.body) ?? {}) as { holder?: unknown };
      return { holder: parseIdentity(holder, who) };
    },
    async dropLease(owner, id, signal) {
      await call('DELETE', `${leasePath(owner)}?id=${encodeURIComponent(id)}`, signal);
    },
    async holder(owner, signal) {
      const answer = await call('GET', leasePath(owner), signal);
      if (answer.status === 404) return undefined;
      return parseIdentity(expectJson(answer, who), who);
    },
    readToken: refreshToken,
    reconnect: close,
    another: () => createClient(config, token),
    close,
  };
}

/** An error that is not of the connection is ours, and stays what it is. */
function asAdminError(error: unknown, who: string): unknown {
  const message = `${who}: ${reason(error)}`;
  // Its cause is Node's; got's own holds the request, and with it the token.
  if (error instanceof RequestError) {
    return new AdminError('openresty/unreachable', message, { cause: error.cause });
  }
  if (!(error instanceof ConfigError)) return error;
  return new AdminError('openresty/refused', message, { cause: error });
}

function unusable(message: string): AdminError {
  return new AdminError('openresty/unusable', message);
}

function leasePath(owner: string): string {
  return `/v1/agents/${encodeURIComponent(owner)}`;
}

const identitySchema = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.number(),
  since: z.string(),
});

function parseIdentity(value: unknown, who: string): Identity {
  const parsed = identitySchema.safeParse(value);
  if (!parsed.success) throw unusable(`${who}: the answer names no agent`);
  return parsed.data;
}

function expectJson(answer: Answer, who: string): unknown {
  if (answer.status !== 200) throw failure(answer, who);
  const value = parse(answer.body);
  if (value === undefined) throw unusable(`${who}: the answer is not JSON`);
  return value;
}

function failure({ status, body }: Answer, who: string): AdminError {
  // RFC 9457; anything else in front of the endpoint may answer without it.
  const problem = parse(body) as Record<string, unknown> | null | undefined;
  const { title, detail, pointer } = problem ?? {};
  const why = [title, detail, pointer].filter((text) => typeof text === 'string').join(': ');
  return new AdminError(
    codeOf(status),
    `${who}: ${status}${why === '' ? '' : ` ${brief(why, 1000)}`}`,
    { status, faults: faultsOf(problem) },
  );
}

const faultSchema = z.object({ pointer: z.string(), detail: z.string() });
const faultsSchema = z.object({ errors: z.array(faultSchema) });

/** All of them where there are several, else the one. */
function faultsOf(problem: unknown): Fault[] {
  const several = faultsSchema.safeParse(problem);
  if (several.success) return several.data.errors;
  const one = faultSchema.safeParse(problem);
  return one.success ? [one.data] : [];
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Only its shape: what other owners have written is theirs. */
function isDocument(value: unknown): value is Document {
  const upstreams = (value as Partial<Document> | null)?.upstreams;
  if (!isObject(upstreams)) return false;
  return Object.values(upstreams).every(isUpstream);
}

function isUpstream(value: unknown): value is Upstream {
  return isObject(value) && isObject(value.peers);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
