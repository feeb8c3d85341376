import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import got from 'got';
import { checkout, findNginx } from './install.mjs';
import { freePort } from './ports.ts';
import { exists, isRunning, start, stop, tail, until } from './process.ts';
import { authorization, tokenFile } from './token.ts';

export interface NginxOptions {
  /** What goes into the `http` block after the Reloadless lines: upstreams and servers. */
  http: (ports: { port: number; adminPort: number }) => string;
  workers?: number;
  /** Sizes as nginx writes them. */
  dict?: string;
  /** Lua text of more options of init, such as `allow = { "10.0.0.0/8" },`. */
  init?: string;
  /** Of the admin endpoint; default that of `token.ts`, null for none. */
  tokenFile?: string | null;
  /** What else is other than in the include that ships: texts and their replacements. */
  changes?: [string, string][];
  /** Lines for the main context. */
  main?: string;
  /** Without Reloadless: what it is measured against, or a backend. */
  plain?: boolean;
  /** Answers once nginx is up; default the user's server. */
  url?: string;
  /** A command that runs nginx, such as a profiler with its options. */
  wrapper?: string[];
  /** Where the admin endpoint listens; default a loopback port. */
  adminListen?: string;
  /** In the background, without which nginx takes no USR2 (docs/discoveries/usr2.md). */
  daemon?: boolean;
}

/** An nginx (or OpenResty) of our own in a folder of its own, with the repository's Lua. */
export class Nginx {
  readonly #folder: string;
  readonly #command: string[];
  readonly #daemon: boolean;
  readonly #workers: number;
  #child: ReturnType<typeof start> | undefined;
  readonly port: number;
  readonly adminPort: number;
  /** Of the user's server. */
  readonly url: string;
  readonly snapshot: string;
  /** Asks the admin endpoint, with its token. */
  readonly http;

  private constructor(
    folder: string,
    command: string[],
    port: number,
    adminPort: number,
    { url = `http://127.0.0.1:${port}`, daemon = false, workers = 2 }: NginxOptions,
  ) {
    this.#folder = folder;
    this.#command = command;
    this.#daemon = daemon;
    this.#workers = workers;
    this.port = port;
    this.adminPort = adminPort;
    this.url = url;
    this.snapshot = join(folder, 'upstreams.snapshot');
    this.http = got.extend({
      prefixUrl: this.admin,
      headers: { authorization },
      retry: { limit: 0 },
      timeout: { request: 30_000 },
      // A worker that ends closes the connections that it has kept.
      agent: { http: new Agent({ keepAlive: false }) },
    });
  }

  /** Writes the configuration, starts nginx and waits until it answers. */
  static async start(folder: string, options: NginxOptions): Promise<Nginx> {
    const found = findNginx();
    if (found === undefined) throw new Error('no nginx: run node test/stack/install.mjs serve');
    const nginx = new Nginx(
      folder,
      [...(options.wrapper ?? []), found.bin],
      await freePort(),
      await freePort(),
      options,
    );
    mkdirSync(join(folder, 'logs'), { recursive: true });
    // Workers run as nobody when we are root: they must reach their files.
    chmodSync(folder, 0o755);
    writeFileSync(join(folder, 'nginx.conf'), nginx.#configuration(found.modules, options));
    await nginx.up();
    return nginx;
  }

  #configuration(modules: string[], options: NginxOptions): string {
    const user = process.getuid?.() === 0 ? 'user nobody nogroup;' : '';
    return `${user}
daemon ${this.#daemon ? 'on' : 'off'};
worker_processes ${this.#workers};
pid nginx.pid;
error_log logs/error.log info;
${modules.map((path) => `load_module ${path};`).join('\n')}
${options.main ?? ''}
worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
    access_log off;
    client_body_temp_path tmp_body;
    proxy_temp_path tmp_proxy;
    fastcgi_temp_path tmp_fastcgi;
    uwsgi_temp_path tmp_uwsgi;
    scgi_temp_path tmp_scgi;
${options.plain ? '' : this.include(options)}
${options.http({ port: this.port, adminPort: this.adminPort })}
}
`;
  }

  /** The include that ships, with this machine's paths and ports in it. */
  include(options: Omit<NginxOptions, 'http'> = {}): string {
    const token = options.tokenFile === undefined ? tokenFile : options.tokenFile;
    const changes: [string, string][] = [
      [
        'token_file = "/etc/reloadless/admin.token",',
        token === null ? '' : `token_file = "${token}",`,
      ],
      ['/usr/share/reloadless/', checkout],
      ['/var/lib/reloadless/upstreams.snapshot', this.snapshot],
      ['127.0.0.1:9410', options.adminListen ?? `127.0.0.1:${this.adminPort}`],
      ['reloadless 16m', `reloadless ${options.dict ?? '16m'}`],
      ['init{', `init{ ${options.init ?? ''}`],
      ...(options.changes ?? []),
    ];
    let text = readFileSync(join(checkout, 'nginx/reloadless.conf'), 'utf8');
    for (const [from, to] of changes) {
      if (!text.includes(from)) throw new Error(`nginx/reloadless.conf lacks ${from}`);
      text = text.replaceAll(from, to);
    }
    return text;
  }

  /** `http://127.0.0.1:port` of the admin endpoint. */
  get admin(): string {
    return `http://127.0.0.1:${this.adminPort}`;
  }

  /** Of the master; of the newer one while there are two. */
  get pid(): number | undefined {
    return this.#daemon ? this.#masters()[0] : this.#child?.pid;
  }

  /** Whether the master that `up` has started lives. */
  get isUp(): boolean {
    return this.#child !== undefined && isRunning(this.#child);
  }

  /** Those of an nginx in the background, the newer one first. */
  #masters(): number[] {
    const files = ['nginx.pid', 'nginx.pid.oldbin'].map((name) => join(this.#folder, name));
    return files.filter(existsSync).map((file) => Number(readFileSync(file, 'utf8')));
  }

  get errorLog(): string {
    return readFileSync(join(this.#folder, 'logs/error.log'), 'utf8');
  }

  /** The pids of the workers that serve now, in order. */
  workers(): number[] {
    const path = `/proc/${this.pid}/task/${this.pid}/children`;
    return (readFileSync(path, 'utf8').match(/\d+/g) ?? []).map(Number).sort();
  }

  /** The workers that a killed master has left: they serve on, in the process group that it led. */
  orphans(): number[] {
    const group = this.#child?.pid;
    if (group === undefined || this.isUp) return [];
    return readdirSync('/proc')
      .map(Number)
      .filter((pid) => isWorker(pid, group));
  }

  /** Starts nginx (again) and waits until it listens. */
  async up(): Promise<void> {
    const log = join(this.#folder, 'logs/error.log');
    const [command = '', ...args] = this.#command;
    const config = join(this.#folder, 'nginx.conf');
    const child = start(command, [...args, '-p', this.#folder, '-c', config], log);
    this.#child = child;
    const isUp = () => isRunning(child) || (this.#daemon && child.exitCode === 0);
    await until('nginx answers', async () => {
      // One that has ended never answers.
      if (isUp()) await got(this.url, { retry: { limit: 0 }, throwHttpErrors: false });
      return true;
    });
    if (!isUp()) throw new Error(`nginx ended:\n${tail(log)}`);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child !== undefined) await stop(this.#child, signal);
    if (this.#daemon) await Promise.all(this.#masters().map((pid) => this.end(pid, signal)));
  }

  /** Ends one master of an nginx in the background, with its workers. */
  async end(pid: number, signal: NodeJS.Signals): Promise<void> {
    process.kill(pid, signal);
    await until('the master is gone', () => !exists(pid));
  }

  /** Kills master and workers at once, as a machine that dies does. */
  async kill(): Promise<void> {
    const workers = this.workers();
    await this.stop('SIGKILL');
    for (const pid of workers) process.kill(pid, 'SIGKILL');
    await until('the workers are gone', () => workers.every((pid) => !exists(pid)));
  }

  /** SIGUSR2: another master and its workers beside the ones there are. @returns the pid of the old */
  async upgrade(): Promise<number> {
    const [old = 0] = this.#masters();
    process.kill(old, 'SIGUSR2');
    await until('there are two masters', () => this.#masters().length === 2);
    await until('the new one has its workers', () => this.workers().length === this.#workers);
    return old;
  }

  /** SIGHUP: new workers on the same shared dict. */
  hup(): void {
    process.kill(this.pid ?? 0, 'SIGHUP');
  }
}

function isWorker(pid: number, group: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return new RegExp(`^\\d+ \\(nginx\\) [^Z] \\d+ ${group} `).test(stat);
  } catch {
    // No process, or no longer.
    return false;
  }
}
