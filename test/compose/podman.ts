import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { checkout, parts } from '../stack/install.mjs';

/** Where images are kept between runs. */
export const store = join(parts, 'compose');
/** One for each checkout; short, since it holds sockets. */
const state = join(
  tmpdir(),
  `reloadless-${createHash('sha256').update(checkout).digest('hex').slice(0, 8)}`,
);

/** Settings of a podman of our own, so that the one the user may have is not touched. */
function settings(): NodeJS.ProcessEnv {
  mkdirSync(store, { recursive: true });
  const containers = join(store, 'containers.conf');
  // The limits are named since podman's defaults may be above what this
  // machine allows.
  writeFileSync(
    containers,
    `[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "${join(state, 'engine')}"
[network]
network_backend = "netavark"
network_config_dir = "${join(state, 'networks')}"
`,
  );
  const storage = join(store, 'storage.conf');
  writeFileSync(
    storage,
    `[storage]
driver = "overlay"
graphroot = "${join(store, 'storage')}"
runroot = "${join(state, 'run')}"
`,
  );
  return {
    ...process.env,
    CONTAINERS_CONF: containers,
    CONTAINERS_STORAGE_CONF: storage,
    BUILDAH_ISOLATION: 'chroot',
    // Podman has systemd run the health checks; where there is none, it must
    // not try. The test runs them itself.
    DISABLE_HC_SYSTEMD: 'true',
  };
}

const env = settings();
const execute = promisify(execFile);

/**
 * Runs a program in the checkout with the settings of our podman.
 *
 * @param extra more of its environment
 * @returns what it wrote to stdout and stderr
 * @throws Error with its command line and all that it wrote, when it fails
 */
export async function run(
  command: string,
  args: string[],
  extra: NodeJS.ProcessEnv = {},
): Promise<{ stdout: string; stderr: string }> {
  try {
    return await execute(command, args, {
      cwd: checkout,
      env: { ...env, ...extra },
      maxBuffer: 64 * 1024 * 1024,
    });
  } catch (error) {
    const { stdout = '' } = error as { stdout?: string };
    throw new Error(`${error}\n${stdout}`);
  }
}

/**
 * @returns its stdout without the last line's end
 * @throws as `run` does
 */
export async function podman(...args: string[]): Promise<string> {
  return (await run('podman', args)).stdout.trimEnd();
}

/** Removes every container, volume and network of our podman; the images stay. */
export async function clear(): Promise<void> {
  await podman('rm', '--all', '--force', '--volumes');
  await podman('volume', 'prune', '--force');
  await podman('network', 'prune', '--force');
  rmSync(state, { recursive: true, force: true });
}
