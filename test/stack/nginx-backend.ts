import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './folder.ts';
import { findNginx } from './install.mjs';
import { start, stop, tail, until } from './process.ts';

/**
 * An nginx whose servers are the backends of a test under load: much faster
 * than Node, and with Lua to answer late or count.
 *
 * @param http what goes into its `http` block
 * @param url answers with a status below 500 once it is up
 * @returns a function that stops it
 */
export async function startNginxBackend(http: string, url: string): Promise<() => Promise<void>> {
  const found = findNginx();
  if (found === undefined) throw new Error('no nginx: run node test/stack/install.mjs serve');
  const { folder, remove } = temporaryFolder();
  mkdirSync(join(folder, 'logs'));
  chmodSync(folder, 0o755);
  const log = join(folder, 'logs/error.log');
  writeFileSync(
    join(folder, 'nginx.conf'),
    `${process.getuid?.() === 0 ? 'user nobody nogroup;' : ''}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log logs/error.log;
${found.modules.map((path) => `load_module ${path};`).join('\n')}
worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
    access_log off;
    client_body_temp_path tmp_body;
    proxy_temp_path tmp_proxy;
    fastcgi_temp_path tmp_fastcgi;
    uwsgi_temp_path tmp_uwsgi;
    scgi_temp_path tmp_scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
${http}
}
`,
  );
  const args = ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', log];
  const child = start(found.bin, args, log);
  await until('the backend answers', async () => (await fetch(url)).status < 500).catch((error) => {
    throw new Error(`${error}\n${tail(log)}`);
  });
  return async () => {
    await stop(child);
    remove();
  };
}
