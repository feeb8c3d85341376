import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import got, { type Got } from 'got';
import type { TargetConfig } from '../config/config.ts';
import type { Document } from '../table/document.ts';
import type { DocumentPatch } from '../table/parts.ts';
import { reason } from '../telemetry/log.ts';
import { readToken } from '../token.ts';

/** The document of a target and the ETag that it had. */
export interface Mirror {
  document: Document;
  /** `"<instance>.<version>"` */
  etag: string;
}

export interface AdminClient {
  /** How to call the target in a message. */
  readonly name: string;
  /**
   * @param etag of the document that we have
   * @returns undefined when it still is the one
   */
  get(etag: string | undefined, signal: AbortSignal): Promise<Mirror | undefined>;
  /** @returns the new ETag */
  patch(patch: DocumentPatch, etag: string, signal: AbortSignal): Promise<string>;
  status(signal: AbortSignal): Promise<unknown>;
  /** Uses the token that the file has now. @throws Error when it cannot be read */
  readToken(): void;
  close(): void;
}

/** The target could not be reached, or answered what it should not have. */
export class AdminError extends Error {
  override name = 'AdminError';
  /** undefined: no answer. */
  readonly status: number | undefined;
  /** JSON pointer (RFC 6901) to what is wrong. */
  readonly pointer: string | undefined;

  constructor(message: string, status?: number, pointer?: string) {
    super(message);
    this.status = status;
    this.pointer = pointer;
  }
}

interface Answer {
  status: number;
  etag: string | undefined;
  body: string;
}

/**
 * Speaks the admin API of one OpenResty. It never retries by itself. Every call
 * throws AdminError. When the token is refused, its file is read again for the
 * next call.
 *
 * @throws Error when the token file cannot be read
 */
export function createAdminClient({ endpoint, token_file }: TargetConfig): AdminClient {
  const agents = {
    http: new HttpAgent({ keepAlive: true, maxSockets: 2 }),
    https: new HttpsAgent({ keepAlive: true, maxSockets: 2 }),
  };
  // got writes a socket's path between the host and the path of the URL.
  const base =
    endpoint.socketPath === undefined ? endpoint.url : `http://unix:${endpoint.socketPath}:`;
  const http: Got = got.extend({
    agent: agents,
    enableUnixSockets: true,
    retry: { limit: 0 },
    timeout: { connect: 2_000, request: 10_000 },
    decompress: false,
    followRedirect: false,
    throwHttpErrors: false,
  });
  const who = `OpenResty at ${endpoint.name}`;
  let token = token_file === undefined ? undefined : readToken(token_file);

  function refreshToken(): void {
    if (token_file !== undefined) token = readToken(token_file);
  }

  async function call(
    method: 'GET' | 'PATCH',
    path: string,
    signal: AbortSignal,
    headers: Record<string, string> = {},
    body?: string,
  ): Promise<Answer> {
    const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const options = { method, signal, headers: { ...headers, ...authorization } };
    try {
      const url = `${base}${path}`;
      const answer = await http(url, body === undefined ? options : { ...options, body });
      const { statusCode: status, headers: received } = answer;
      // The token may have been replaced: the next call takes the one that the file has now.
      if (status === 401 || status === 403) refreshToken();
      return { status, etag: received.etag, body: answer.body };
    } catch (error) {
      throw new AdminError(`${who}: ${reason(error)}`);
    }
  }

  return {
    name: endpoint.name,
    async get(etag, signal) {
      const condition = etag === undefined ? {} : { 'if-none-match': etag };
      const answer = await call('GET', '/v1/upstreams', signal, condition);
      if (answer.status === 304 && etag !== undefined) return undefined;
      const document = expectJson(answer, who);
      if (!isDocument(document) || answer.etag === undefined) {
        throw new AdminError(`${who}: this is not the admin endpoint of Reloadless`);
      }
      return { document, etag: answer.etag };
    },
    async patch(patch, etag, signal) {
      const headers = { 'content-type': 'application/merge-patch+json', 'if-match': etag };
      const answer = await call('PATCH', '/v1/upstreams', signal, headers, JSON.stringify(patch));
      expectJson(answer, who);
      if (answer.etag === undefined) throw new AdminError(`${who}: no ETag`);
      return answer.etag;
    },
    async status(signal) {
      return expectJson(await call('GET', '/v1/status', signal), who);
    },
    readToken: refreshToken,
    close() {
      agents.http.destroy();
      agents.https.destroy();
    },
  };
}

function expectJson({ status, body }: Answer, who: string): unknown {
  if (status === 200) {
    const value = parse(body);
    if (value === undefined) throw new AdminError(`${who}: the answer is not JSON`, status);
    return value;
  }
  // RFC 9457; anything else in front of the endpoint may answer without it.
  const problem = parse(body) as Record<string, unknown> | null | undefined;
  const { title, detail, pointer } = problem ?? {};
  const why = [title, detail, pointer].filter((text) => typeof text === 'string').join(': ');
  throw new AdminError(
    `${who}: ${status}${why === '' ? '' : ` ${why}`}`,
    status,
    typeof pointer === 'string' ? pointer : undefined,
  );
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
  return Object.values(upstreams).every((upstream) => isObject(upstream?.peers));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
