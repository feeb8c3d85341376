import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { debianMirror, findConsul } from './install.mjs';

/** Runs the command that follows where its mounts and processes end with it, and it with us. */
const confined = [
  ...['setpriv', '--pdeathsig', 'KILL'],
  ...['unshare', '--mount', '--pid', '--mount-proc', '--fork', '--kill-child'],
] as const;

/**
 * Makes a Debian of this release in the folder, in place of what is there.
 *
 * @throws Error when it cannot
 */
export function makeRoot(release: string, root: string, packages: string[]): void {
  if (process.getuid?.() !== 0) throw new Error('a chroot is made, which only root can');
  const mirror = debianMirror();
  if (mirror === undefined) throw new Error('apt names no Debian mirror to make the chroot from');
  console.log(`Making a Debian ${release} …`);
  rmSync(root, { recursive: true, force: true });
  mkdirSync(dirname(root), { recursive: true });
  const [command, ...args] = confined;
  const { status, stdout, stderr } = spawnSync(
    command,
    [
      ...[...args, 'debootstrap', '--variant=minbase', `--include=${packages.join(',')}`],
      // An older debootstrap has no script named after the release; all are that of sid.
      ...[release, root, mirror, 'sid'],
    ],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`debootstrap of ${release} failed:\n${stdout}${stderr}`);
  writeFileSync(`${root}/etc/hosts`, '127.0.0.1 localhost\n::1 localhost\n');
}

/**
 * Runs a command in that Debian, in `/checkout`, which is this one, with this
 * machine's node and Consul. What it writes to stdout is ours to read.
 */
export function runInside(root: string, command: string[]): ChildProcess {
  const consul = findConsul();
  if (consul === undefined) throw new Error('no consul: run node test/stack/install.mjs serve');
  const script = fileURLToPath(new URL('inside.sh', import.meta.url));
  const [first, ...args] = confined;
  return spawn(first, [...args, 'sh', script, root, process.execPath, consul, ...command], {
    env: { PATH: '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin', HOME: '/root' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}
