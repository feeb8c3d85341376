import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FileConfig } from '../../agent/config/file-schema.ts';
import { resolveConfig } from '../../agent/config/resolve.ts';

function consul(env: NodeJS.ProcessEnv, file: FileConfig['consul'] = {}) {
  return resolveConfig({ service: ['web'] }, env, { consul: file }).consul;
}

test('an address may lack its scheme, and may be a socket', () => {
  const url = (address: string) => consul({ CONSUL_HTTP_ADDR: address }).endpoints[0]?.url;
  assert.equal(url('10.0.0.1:8500'), 'http://10.0.0.1:8500');
  assert.equal(url('consul'), 'http://consul');
  assert.equal(url('https://consul/prefix/'), 'https://consul/prefix');
  const { endpoints } = consul({ CONSUL_HTTP_ADDR: 'unix:///run/consul.sock' });
  assert.equal(endpoints[0]?.socketPath, '/run/consul.sock');
});

test('CONSUL_HTTP_SSL makes it https, whatever the scheme', () => {
  const url = (address: string) => {
    return consul({ CONSUL_HTTP_ADDR: address, CONSUL_HTTP_SSL: 'true' }).endpoints[0]?.url;
  };
  assert.equal(url('10.0.0.1:8501'), 'https://10.0.0.1:8501');
  assert.equal(url('http://10.0.0.1:8501'), 'https://10.0.0.1:8501');
  assert.equal(consul({ CONSUL_HTTP_SSL: '0' }).endpoints[0]?.url, 'http://127.0.0.1:8500');
});

test('a token of the environment goes before the file’s; its file before itself', () => {
  const file = { token_file: '/file' };
  assert.equal(consul({}, file).token_file, '/file');
  const token = consul({ CONSUL_HTTP_TOKEN: 'secret' }, file);
  assert.deepEqual([token.token, token.token_file], ['secret', undefined]);
  const both = consul({ CONSUL_HTTP_TOKEN: 'secret', CONSUL_HTTP_TOKEN_FILE: '/env' }, file);
  assert.equal(both.token_file, '/env');
});

test('TLS and the namespace', () => {
  const { tls, namespace } = consul(
    {
      CONSUL_CACERT: 'ca',
      CONSUL_CLIENT_CERT: 'cert',
      CONSUL_CLIENT_KEY: 'key',
      CONSUL_TLS_SERVER_NAME: 'name',
      CONSUL_HTTP_SSL_VERIFY: 'false',
      CONSUL_NAMESPACE: 'team',
    },
    { tls: { ca_file: 'other', verify: true }, namespace: 'other' },
  );
  assert.deepEqual(tls, {
    ca_file: 'ca',
    cert_file: 'cert',
    key_file: 'key',
    server_name: 'name',
    verify: false,
  });
  assert.equal(namespace, 'team');
});

test('an empty variable is none, and a wrong one is named', () => {
  assert.equal(consul({ CONSUL_HTTP_ADDR: '' }).endpoints[0]?.url, 'http://127.0.0.1:8500');
  assert.throws(
    () => consul({ CONSUL_HTTP_SSL: 'yes' }),
    /^ConfigError: CONSUL_HTTP_SSL: "yes" is not true or false$/,
  );
});
