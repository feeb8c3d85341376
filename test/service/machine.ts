import { type ChildProcess, execFile, spawn } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { debianMirror, parts } from '../stack/install.mjs';
import { isRunning, stop, until } from '../stack/process.ts';

const execute = promisify(execFile);
const store = join(parts, 'service');

/** What a person has who puts Reloadless beside an nginx, and a clean Debian does not. */
const packages = ['systemd', 'nginx', 'ca-certificates', 'curl', 'openssl'];

/** Starts the command that follows so that it ends with us, and its mounts with it. */
const confined = ['setpriv', '--pdeathsig', 'KILL', 'unshare', '--mount'];

/**
 * A Debian with systemd, nginx and Node.js; one that an earlier run has made is
 * used again.
 *
 * @returns its folder
 */
async function makeBase(): Promise<string> {
  const base = join(store, 'debian');
  if (existsSync(base)) return base;
  const mirror = debianMirror();
  if (mirror === undefined) throw new Error('apt names no Debian mirror to make a machine from');
  console.log('Making a Debian: a minute the first time …');
  const root = join(store, 'unfinished');
  rmSync(root, { recursive: true, force: true });
  mkdirSync(store, { recursive: true });
  const [command = '', ...args] = [
    ...confined,
    ...['--pid', '--mount-proc', '--fork', '--kill-child'],
    ...['debootstrap', '--variant=minbase', `--include=${packages}`, 'bookworm', root, mirror],
  ];
  await execute(command, args, { maxBuffer: 16 * 1024 * 1024 });
  writeFileSync(join(root, 'etc/hostname'), 'machine\n');
  writeFileSync(join(root, 'etc/hosts'), '127.0.0.1 localhost machine\n::1 localhost\n');
  // Nobody sits before it.
  for (const unit of ['getty.target', 'console-getty.service']) {
    symlinkSync('/dev/null', join(root, 'etc/systemd/system', unit));
  }
  await addNode(root);
  renameSync(root, base);
  return base;
}

/** The Node.js that runs us, with npm and this machine's way to its registry. */
async function addNode(root: string): Promise<void> {
  const npm = async (...args: string[]) => (await execute('npm', args)).stdout.trim();
  const local = join(root, 'usr/local');
  copyFileSync(process.execPath, join(local, 'bin/node'));
  cpSync(join(await npm('root', '--global'), 'npm'), join(local, 'lib/node_modules/npm'), {
    recursive: true,
  });
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(local, 'bin/npm'));
  const configured = await npm('config', 'get', 'cafile');
  const authorities = configured === 'null' ? process.env.NODE_EXTRA_CA_CERTS : configured;
  let npmrc = `registry=${await npm('config', 'get', 'registry')}\n`;
  if (authorities !== undefined) {
    copyFileSync(authorities, join(local, 'etc/ca.pem'));
    npmrc += 'cafile=/usr/local/etc/ca.pem\n';
  }
  writeFileSync(join(local, 'etc/npmrc'), npmrc);
}

export interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}

/** A Debian of our own that systemd has booted, on a network of its own. */
export class Machine {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** @throws Error where that cannot be done: not as root, or without a Debian mirror */
  static async boot(): Promise<Machine> {
    if (process.getuid?.() !== 0) throw new Error('a machine has namespaces: run this as root');
    const script = fileURLToPath(new URL('machine.sh', import.meta.url));
    const work = join(store, 'machine');
    const [command = '', ...args] = [...confined, 'sh', script, await makeBase(), work];
    mkdirSync(work, { recursive: true });
    const machine = new Machine(spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit'] }));
    await machine.#booted(undefined);
    return machine;
  }

  /** The only child of a process. */
  #childOf(pid: number | undefined): number {
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim());
  }

  /** Of its systemd, as we see it: machine.sh, unshare, systemd. */
  get #init(): number {
    return this.#childOf(this.#childOf(this.#child.pid));
  }

  /** @param before pid of the systemd that runs no more */
  async #booted(before: number | undefined): Promise<void> {
    await until(
      'the machine is up',
      async () => {
        if (!isRunning(this.#child)) throw new Error(`machine.sh ended: ${this.#child.exitCode}`);
        if (this.#init === before) return false;
        const { stdout } = await this.try('systemctl is-system-running');
        return /running|degraded/.test(stdout);
      },
      60,
    );
  }

  /** The path outside of a file in it. */
  path(file: string): string {
    return join(`/proc/${this.#init}/root`, file);
  }

  /**
   * Runs lines of shell as root, as in a login.
   *
   * @param network whether they may reach what this machine reaches
   */
  async try(script: string, { cwd = '/root', network = false } = {}): Promise<Ended> {
    const namespaces = ['--mount', '--pid', '--ipc', '--uts', '--cgroup', '--root', '--wd'];
    if (!network) namespaces.push('--net');
    const args = [
      ...['-t', `${this.#init}`, ...namespaces],
      ...['env', '-i', 'HOME=/root', 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin'],
      ...['DEBIAN_FRONTEND=noninteractive', 'bash', '-ec', `cd ${cwd}\n${script}`],
    ];
    try {
      return { code: 0, ...(await execute('nsenter', args, { maxBuffer: 16 * 1024 * 1024 })) };
    } catch (error) {
      const { code, stdout, stderr } = error as Ended;
      if (typeof code !== 'number') throw error;
      return { code, stdout, stderr };
    }
  }

  /** As `try`. @returns its stdout @throws Error when it fails */
  async run(script: string, options: { cwd?: string; network?: boolean } = {}): Promise<string> {
    const { code, stdout, stderr } = await this.try(script, options);
    if (code !== 0) throw new Error(`exit ${code}: ${script}\n${stdout}${stderr}`);
    return stdout.trim();
  }

  /** Ends all that runs in it and boots it again: what was in /run is gone. */
  async reboot(): Promise<void> {
    const before = this.#init;
    await this.try('systemctl reboot');
    await this.#booted(before);
  }

  /** Nothing is left of it. */
  async stop(): Promise<void> {
    if (isRunning(this.#child)) await this.try('systemctl poweroff');
    await until('the machine is off', () => !isRunning(this.#child)).catch(() =>
      stop(this.#child, 'SIGKILL'),
    );
  }
}
