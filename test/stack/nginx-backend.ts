import { temporaryFolder } from './folder.ts';
import { Nginx } from './nginx.ts';

/**
 * An nginx whose servers are the backends of a test under load: much faster
 * than Node, and with Lua to answer late or count.
 *
 * @param http what goes into its `http` block
 * @param url answers once it is up
 * @returns a function that stops it
 */
export async function startNginxBackend(http: string, url: string): Promise<() => Promise<void>> {
  const { folder, remove } = temporaryFolder();
  const nginx = await Nginx.start(folder, {
    plain: true,
    workers: 1,
    url,
    http: () => `
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
${http}`,
  });
  return async () => {
    await nginx.stop();
    remove();
  };
}
