// Stand-ins for the base images under their real names, so that the Dockerfiles
// and docker-compose.yml are used unchanged where no registry of images can be
// reached: a small Debian with the nginx, Consul and Node.js of the other tests.
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkout, debianMirror, findConsul } from '../stack/install.mjs';
import { podman, run, store } from './podman.ts';

const base = 'localhost/reloadless-base';

/** The name, with its tag, that our files give the image. */
function imageName(repository: string): string {
  const files = ['docker-compose.yml', 'agent/Dockerfile', 'nginx/Dockerfile'];
  const text = files.map((file) => readFileSync(join(checkout, file), 'utf8')).join('\n');
  const [name, ...others] = new Set(text.match(new RegExp(`\\b${repository}:[\\w.-]+`, 'g')));
  if (name === undefined || others.length > 0) {
    throw new Error(`one tag of ${repository} wanted in ${files.join(', ')}: ${[name, ...others]}`);
  }
  return name;
}

async function exists(image: string): Promise<boolean> {
  return podman('image', 'exists', image).then(
    () => true,
    () => false,
  );
}

/** One Debian for all three: it holds what any of them needs. */
async function makeBase(): Promise<void> {
  const mirror = debianMirror();
  if (mirror === undefined) throw new Error('apt names no Debian mirror to make the images from');
  const root = join(store, 'root');
  const archive = join(store, 'root.tar');
  rmSync(root, { recursive: true, force: true });
  const packages = 'ca-certificates,nginx,libnginx-mod-http-lua,lua-cjson';
  await run('debootstrap', [
    '--variant=minbase',
    `--include=${packages}`,
    'bookworm',
    root,
    mirror,
  ]);
  for (const unused of [
    'var/cache/apt',
    'var/lib/apt/lists',
    'usr/share/doc',
    'usr/share/locale',
  ]) {
    rmSync(join(root, unused), { recursive: true, force: true });
  }
  await run('tar', ['-C', root, '-cf', archive, '.']);
  await podman('import', archive, base);
  rmSync(root, { recursive: true });
  rmSync(archive);
}

/**
 * Builds the stand-in from its recipe in `images/`.
 *
 * @param fill adds what the recipe copies to the folder that it is given
 */
async function make(
  recipe: string,
  repository: string,
  fill: (folder: string) => Promise<void> | void,
): Promise<void> {
  const folder = join(store, recipe);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(checkout, 'test/compose/images', recipe), folder, { recursive: true });
  await fill(folder);
  await podman('build', '--tag', `localhost/${imageName(repository)}`, folder);
}

/** The Node.js that runs us, and npm with this machine's way to its registry. */
async function addNode(folder: string): Promise<void> {
  const npm = async (...args: string[]) => (await run('npm', args)).stdout.trim();
  copyFileSync(process.execPath, join(folder, 'node'));
  cpSync(join(await npm('root', '--global'), 'npm'), join(folder, 'npm'), { recursive: true });
  const configured = await npm('config', 'get', 'cafile');
  const authorities = configured === 'null' ? process.env.NODE_EXTRA_CA_CERTS : configured;
  let npmrc = `registry=${await npm('config', 'get', 'registry')}\n`;
  if (authorities !== undefined) npmrc += 'cafile=/usr/local/etc/ca.pem\n';
  writeFileSync(join(folder, 'npmrc'), npmrc);
  writeFileSync(join(folder, 'ca.pem'), authorities === undefined ? '' : readFileSync(authorities));
}

function addConsul(folder: string): void {
  const bin = findConsul();
  if (bin === undefined) throw new Error('no consul: run node test/stack/install.mjs serve');
  copyFileSync(bin, join(folder, 'consul'));
}

/**
 * Makes the images; what an earlier run has made is used again.
 *
 * @throws Error when apt names no mirror, or debootstrap or podman fail
 */
export async function makeImages(): Promise<void> {
  if (!(await exists(base))) await makeBase();
  await make('node', 'node', addNode);
  await make('consul', 'hashicorp/consul', addConsul);
  await make('openresty', 'openresty/openresty', () => {});
}
