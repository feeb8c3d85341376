#!/usr/bin/env node
// Brings a fresh machine to where the stack can run: npm packages, nginx with
// the Lua module, Consul, and the tools of the tests. Plain JavaScript on
// Node's own modules, since it runs before anything is installed.
//
//   node test/stack/install.mjs serve [check] [bench] [nginx] [service] [compose]

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const checkout = fileURLToPath(new URL('../..', import.meta.url));
/** Everything fetched for the tests and not committed. */
export const parts = join(checkout, '.parts');

/** Debian packages and the command that shows each is there, by purpose. */
const packages = {
  check: {
    luajit2: 'luajit',
    'lua-busted': 'busted',
    'lua-check': 'luacheck',
    openssl: 'openssl',
    faketime: 'faketime',
    curl: 'curl',
  },
  bench: { wrk: 'wrk' },
  nginx: { debootstrap: 'debootstrap' },
  service: { debootstrap: 'debootstrap', iproute2: 'ip' },
  compose: {
    podman: 'podman',
    'podman-compose': 'podman-compose',
    buildah: 'buildah',
    runc: 'runc',
    netavark: '/usr/lib/podman/netavark',
    'aardvark-dns': '/usr/lib/podman/aardvark-dns',
    iptables: 'iptables',
    debootstrap: 'debootstrap',
  },
};

/** @param {string} command @returns {string | undefined} its full path */
function onPath(command) {
  if (command.startsWith('/')) return existsSync(command) ? command : undefined;
  // Debian keeps servers in sbin, which is not on every user's PATH.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.map((folder) => join(folder, command)).find((path) => existsSync(path));
}

/**
 * Where nginx is, its version, and the modules to load that give it Lua.
 * @returns {{ bin: string, version: string, modules: string[] } | undefined}
 */
export function findNginx() {
  for (const name of ['openresty', 'nginx']) {
    const bin = onPath(name);
    if (bin === undefined) continue;
    const build = spawnSync(bin, ['-V'], { encoding: 'utf8' }).stderr ?? '';
    const version = /nginx version: \w+\/([\d.]+)/.exec(build)?.[1] ?? '';
    if (/--add-module=\S*(ngx_lua|lua-nginx-module)/.test(build)) {
      return { bin, version, modules: [] };
    }
    const folder = /--modules-path=(\S+)/.exec(build)?.[1] ?? '/usr/lib/nginx/modules';
    const modules = ['ndk_http_module.so', 'ngx_http_lua_module.so'].map((f) => join(folder, f));
    if (modules.every((path) => existsSync(path))) return { bin, version, modules };
  }
  return undefined;
}

/** @returns {string | undefined} the consul command */
export function findConsul() {
  const fetched = join(parts, 'consul/usr/bin/consul');
  return process.env.CONSUL_BIN ?? onPath('consul') ?? (existsSync(fetched) ? fetched : undefined);
}

/** @param {string} message @returns {never} */
function fail(message) {
  process.stderr.write(`${message}\n`);
  process.exit(1);
}

/** @param {string} command @param {string[]} args @param {object} [options] */
function run(command, args, options) {
  const done = spawnSync(command, args, { encoding: 'utf8', ...options });
  if (done.error !== undefined) throw done.error;
  if (done.status !== 0) {
    throw new Error(
      `${command} ${args.join(' ')}: exit ${done.status}\n${done.stdout}${done.stderr}`,
    );
  }
  return done.stdout;
}

function installNpmPackages() {
  const installed = join(checkout, 'node_modules/.package-lock.json');
  const lock = join(checkout, 'package-lock.json');
  if (existsSync(installed) && statSync(installed).mtimeMs >= statSync(lock).mtimeMs) return;
  process.stdout.write('Installing npm packages …\n');
  // npm_config_* of the npm that runs us would leave out devDependencies under --omit=dev.
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund'], { cwd: checkout });
}

/** @param {string[]} names Debian packages */
function installDebianPackages(names) {
  const manual = `apt-get install -y --no-install-recommends ${names.join(' ')}`;
  if (onPath('apt-get') === undefined) {
    fail(
      `Missing: ${names.join(', ')} (Debian's names).\nInstall them, or OpenResty, with this system's package manager and try again.`,
    );
  }
  if (process.getuid?.() !== 0) {
    fail(
      `Missing Debian packages: ${names.join(', ')}.\nInstall them as root and try again:\n\n  sudo ${manual}\n`,
    );
  }
  process.stdout.write(`Installing ${names.join(', ')} …\n`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  // A freshly installed nginx must not start on port 80 (Debian policy-rc.d).
  const policy = '/usr/sbin/policy-rc.d';
  const ours = !existsSync(policy);
  if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const [command = '', ...args] = manual.split(' ');
    if (spawnSync(command, args, { env, stdio: 'ignore' }).status !== 0) {
      run('apt-get', ['update'], { env });
      run(command, args, { env });
    }
  } catch (error) {
    fail(String(error));
  } finally {
    if (ours) rmSync(policy);
  }
}

/**
 * The mirror from which this machine's own apt gets its release.
 * @returns {string | undefined} nothing where apt names no Debian mirror
 */
export function debianMirror() {
  const list = () =>
    execFileSync(
      'apt-get',
      ['indextargets', '--format', '$(ORIGIN) $(LABEL) $(REPO_URI)', 'Created-By: Packages'],
      { encoding: 'utf8' },
    )
      .split('\n')
      .find((line) => line.startsWith('Debian Debian '))
      ?.split(' ')[2];
  let mirror = list();
  if (mirror === undefined && process.getuid?.() === 0) {
    run('apt-get', ['update']);
    mirror = list();
  }
  return mirror;
}

/**
 * bookworm has no consul, bullseye's runs on it. An apt configuration of its
 * own (sources, lists, cache) fetches the one package; the system's is only
 * read.
 */
function fetchConsul() {
  const manual = 'Install Consul and put it on the PATH, or name it in CONSUL_BIN.';
  if (onPath('apt-get') === undefined) fail(`Consul is missing. ${manual}`);
  const mirror = debianMirror();
  if (mirror === undefined) fail(`Consul is missing, and apt names no Debian mirror. ${manual}`);
  process.stdout.write('Fetching Consul …\n');
  const folder = join(parts, 'apt');
  for (const sub of ['lists/partial', 'cache/archives/partial']) {
    mkdirSync(join(folder, sub), { recursive: true });
  }
  const sources = join(folder, 'sources.list');
  writeFileSync(sources, `deb ${mirror} bullseye main\n`);
  const own = [
    `Dir::Etc::sourcelist=${sources}`,
    'Dir::Etc::sourceparts=-',
    `Dir::State::lists=${join(folder, 'lists')}`,
    `Dir::Cache=${join(folder, 'cache')}`,
    `APT::Sandbox::User=root`,
  ].flatMap((option) => ['-o', option]);
  try {
    run('apt-get', [...own, 'update']);
    run('apt-get', [...own, 'download', 'consul'], { cwd: folder });
    const deb = readdirSync(folder).find((file) => file.endsWith('.deb'));
    run('dpkg-deb', ['-x', join(folder, deb ?? ''), join(parts, 'consul')]);
  } catch (error) {
    fail(`Consul could not be fetched: ${error}\n${manual}`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @param {string[]} purposes */
function main(purposes) {
  installNpmPackages();
  const missing = findNginx() ? [] : ['nginx', 'libnginx-mod-http-lua', 'lua-cjson'];
  for (const purpose of purposes) {
    const wanted = packages[/** @type {keyof typeof packages} */ (purpose)] ?? {};
    for (const [name, command] of Object.entries(wanted)) {
      if (onPath(command) === undefined) missing.push(name);
    }
  }
  if (missing.length > 0) installDebianPackages(missing);
  if (findNginx() === undefined) {
    fail('nginx is here, but its Lua module is not: install libnginx-mod-http-lua, or OpenResty.');
  }
  if (findConsul() === undefined) fetchConsul();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
