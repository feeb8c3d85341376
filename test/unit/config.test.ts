import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Config } from '../../agent/config/config.ts';
import { parseDuration } from '../../agent/config/duration.ts';
import { ConfigError } from '../../agent/config/error.ts';
import { parseConfig, readConfigFile } from '../../agent/config/file.ts';
import { type Flags, loadConfig, loadTargets, resolveConfig } from '../../agent/config/resolve.ts';
import { describeSource } from '../../agent/source/source.ts';

function load(yaml: string, flags: Flags = {}, env: NodeJS.ProcessEnv = {}): Config {
  return resolveConfig(flags, env, parseConfig(yaml, 'reloadless.yml'));
}

function refusal(yaml: string, flags: Flags = {}, env: NodeJS.ProcessEnv = {}): string {
  try {
    load(yaml, flags, env);
  } catch (error) {
    assert(error instanceof ConfigError);
    return error.message;
  }
  return 'taken';
}

const web = 'upstreams: { web: }';

const nowhere = {
  datacenter: undefined,
  namespace: undefined,
  partition: undefined,
  peer: undefined,
};
const all = { tags: [], tags_any: [], tags_none: [], meta: {}, meta_none: {} };

test('a service on the command line is enough', () => {
  const config = resolveConfig({ service: ['web'] }, {}, {});
  assert.equal(config.consul.endpoints[0]?.url, 'http://127.0.0.1:8500');
  assert.equal(config.openresty[0]?.endpoint.url, 'http://127.0.0.1:9410');
  assert.equal(config.owner, 'reloadless');
  assert.equal(config.snapshot, undefined);
  assert.deepEqual(config.log, { level: 'info', format: 'json' });
  assert.deepEqual(config.upstreams.get('web'), {
    source: {
      kind: 'health',
      service: 'web',
      place: nowhere,
      filter: undefined,
      selection: all,
      port: undefined,
      tagged_address: undefined,
      require_check: false,
      settings_from: ['meta'],
      policy: { min_health: 'warning', panic_threshold: 0 },
    },
    holdFor: 60_000,
    origin: 'configuration',
    settings: {},
  });
});

test('every key of the file arrives', () => {
  const config = load(`
consul:
  address: [https://consul.example:8501, 10.0.0.9]
  token_file: /etc/reloadless/consul.token
  datacenter: dc1
  namespace: team
  consistency: consistent
  wait: 10s
  max_connections: 10
  tls: { ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, server_name: s, verify: false }
openresty:
  - address: unix:/run/reloadless/admin.sock
    token_file: /etc/reloadless/admin.token
snapshot: /tmp/s
owner: me
log: { level: warn, format: pretty }
upstreams:
  api:
    service: web
    port: http
    tags: [prod, 'a "b"']
    filter: 'Service.Meta.version == "2" or Service.Port == 80'
    tags_any: [blue, green]
    tags_none: [canary]
    meta: { track: stable }
    meta_none: { broken: 'yes' }
    tagged_address: wan_ipv6
    require_check: true
    settings_from: [meta, tags]
    datacenter: dc2
    namespace: team
    partition: east
    peer: cloud
    min_health: passing
    panic_threshold: off
    hold_empty: 2m
    balance: hash
    hash_key: $remote_addr
    sticky: route
    max_fails: 3
    fail_timeout: 500ms
    max_tries: 2
    connect_timeout: 1.5
    send_timeout: 10s
    read_timeout: 1m
    zone: a
`);
  assert.deepEqual(config.consul, {
    endpoints: [
      { name: 'https://consul.example:8501', url: 'https://consul.example:8501' },
      { name: 'http://10.0.0.9', url: 'http://10.0.0.9' },
    ],
    token_file: '/etc/reloadless/consul.token',
    token: undefined,
    datacenter: 'dc1',
    namespace: 'team',
    consistency: 'consistent',
    wait: 10_000,
    max_connections: 10,
    tls: {
      ca_file: 'ca.pem',
      cert_file: 'c.pem',
      key_file: 'k.pem',
      server_name: 's',
      verify: false,
    },
  });
  assert.deepEqual(config.openresty, [
    {
      endpoint: {
        name: 'unix:/run/reloadless/admin.sock',
        url: 'http://localhost',
        socketPath: '/run/reloadless/admin.sock',
      },
      token_file: '/etc/reloadless/admin.token',
    },
  ]);
  assert.equal(config.snapshot, '/tmp/s');
  assert.equal(config.owner, 'me');
  assert.deepEqual(config.log, { level: 'warn', format: 'pretty' });
  assert.deepEqual(config.upstreams.get('api'), {
    source: {
      kind: 'health',
      service: 'web',
      place: { datacenter: 'dc2', namespace: 'team', partition: 'east', peer: 'cloud' },
      filter: 'Service.Meta.version == "2" or Service.Port == 80',
      selection: {
        tags: ['prod', 'a "b"'],
        tags_any: ['blue', 'green'],
        tags_none: ['canary'],
        meta: { track: 'stable' },
        meta_none: { broken: 'yes' },
      },
      port: 'http',
      tagged_address: 'wan_ipv6',
      require_check: true,
      settings_from: ['meta', 'tags'],
      policy: { min_health: 'passing', panic_threshold: undefined },
    },
    holdFor: 120_000,
    origin: 'configuration',
    settings: {
      balance: 'hash',
      hash_key: '$remote_addr',
      sticky: 'route',
      max_fails: 3,
      fail_timeout: 0.5,
      max_tries: 2,
      connect_timeout: 1.5,
      send_timeout: 10,
      read_timeout: 60,
      zone: 'a',
    },
  });
});

test('a flag goes before the environment, that before the file, that before the default', () => {
  const file = `{ consul: { address: 'http://file:1' }, ${web} }`;
  const env = { CONSUL_HTTP_ADDR: 'env:1' };
  const address = (config: Config) => config.consul.endpoints[0]?.url;
  assert.equal(address(load(`{ ${web} }`)), 'http://127.0.0.1:8500');
  assert.equal(address(load(file)), 'http://file:1');
  assert.equal(address(load(file, {}, env)), 'http://env:1');
  assert.equal(address(load(file, { consul: 'http://flag:1' }, env)), 'http://flag:1');
});

test('targets on the command line replace those of the file, and keep its tokens', () => {
  const file = `{ openresty: [{ address: 'http://a:1', token_file: t }, { address: 'http://b:1' }], ${web} }`;
  const { openresty } = load(file, { openresty: ['http://a:1/', 'unix:/s'] });
  assert.deepEqual(
    openresty.map(({ endpoint, token_file }) => [endpoint.name, token_file]),
    [
      ['http://a:1', 't'],
      ['unix:/s', undefined],
    ],
  );
});

test("a target's token is that of the command line, its own, that of the environment", () => {
  const file = `{ openresty: [{ address: 'http://a:1', token_file: own }, { address: 'unix:/s' }], ${web} }`;
  const tokens = (flags: Flags, env: NodeJS.ProcessEnv) =>
    load(file, flags, env).openresty.map(({ token_file }) => token_file);
  const env = { RELOADLESS_TOKEN_FILE: 'env' };
  assert.deepEqual(tokens({}, {}), ['own', undefined]);
  assert.deepEqual(tokens({}, env), ['own', 'env']);
  assert.deepEqual(tokens({ tokenFile: 'flag' }, env), ['flag', 'flag']);
  assert.deepEqual(tokens({ openresty: ['http://b:1', 'http://a:1'] }, env), ['env', 'own']);
  assert.deepEqual(tokens({}, { RELOADLESS_TOKEN_FILE: '' }), ['own', undefined]);
});

test('the token of this machine goes to loopback alone', () => {
  const token = (address: string) =>
    resolveConfig({ openresty: [address], service: ['web'] }, {}, {}, 'local').openresty[0]
      ?.token_file;
  for (const address of [
    'http://127.0.0.1:9410',
    '127.1:80',
    'https://127.9.9.9/admin',
    'http://[::1]:1',
    'http://LOCALHOST:9410',
  ]) {
    assert.equal(token(address), 'local', address);
  }
  for (const address of [
    'http://10.0.0.1:9410',
    'http://128.0.0.1',
    'http://0.0.0.0:9410',
    'http://[::]:9410',
    'http://[::2]:9410',
    'http://[::1:1]:9410',
    'http://localhost.example:9410',
    'http://127.0.0.1.example:9410',
    'http://127.0.0.1@example:9410',
    'http://example/127.0.0.1',
    'unix:/run/127.0.0.1',
  ]) {
    assert.equal(token(address), undefined, address);
  }
  assert.equal(
    resolveConfig({ service: ['web'] }, {}, {}, 'local').openresty[0]?.token_file,
    'local',
  );
});

test('a service on the command line joins those of the file', () => {
  const { upstreams } = load('upstreams: { web: { service: w } }', { service: ['web', 'api'] });
  assert.deepEqual(
    [...upstreams].map(([name, { source }]) => [name, describeSource(source)]),
    [
      ['web', 'service w'],
      ['api', 'service api'],
    ],
  );
});

const refused: [string, string][] = [
  [
    'upstreams: { web: { max_fails: 70000 } }',
    'upstreams.web.max_fails: 70000 is not an integer from 0 to 65535',
  ],
  ['upstreams: { web: { source: dns } }', 'upstreams.web.source: "dns" is not one of health, kv'],
  ['metrics: 127.0.0.1:9411', 'metrics: not a key that can be set here'],
  [
    'upstreams: { web: { hold_empty: 1 minute } }',
    'upstreams.web.hold_empty: "1 minute" is not a duration from 0 to 24h, such as 500ms, 60s, 2m or a number of seconds',
  ],
  [
    'upstreams: { web: { panic_threshold: 101 } }',
    'upstreams.web.panic_threshold: 101 is not off or a number from 0 to 100',
  ],
  [
    'upstreams: { web: { min_health: critical } }',
    'upstreams.web.min_health: "critical" is not one of passing, warning',
  ],
  [
    'upstreams: { web: { balance: hash } }',
    'upstreams.web.hash_key: missing, expected what to hash, such as $remote_addr, since balance is hash',
  ],
  ['upstreams: [web]', 'upstreams: ["web"] is not a mapping of names to values'],
  ['upstreams: { web: { tags: prod } }', 'upstreams.web.tags: "prod" is not a list'],
  [
    'upstreams: { a/b: {} }',
    'upstreams.a/b: the key is not a name: 1 to 128 of A-Z a-z 0-9 . _ - but not . or ..',
  ],
  [
    'upstreams: { ..: {} }',
    'upstreams...: the key is not a name: 1 to 128 of A-Z a-z 0-9 . _ - but not . or ..',
  ],
  ['openresty: []', 'openresty: [] is not a list of at least one target'],
  [
    'consul: { consistency: fast }',
    'consul.consistency: "fast" is not one of stale, default, consistent',
  ],
  ['consul: { address: [] }', 'consul.address: [] is not an address or a list of addresses'],
  [
    'consul: { address: [a, 1] }',
    'consul.address: ["a",1] is not an address or a list of addresses',
  ],
  ['upstreams: { __proto__: {} }', 'upstreams.__proto__: not a key that can be set here'],
  ['just text', '"just text" is not a mapping of names to values'],
];

for (const [yaml, expected] of refused) {
  test(`refused: ${yaml}`, () => assert.equal(refusal(yaml), `reloadless.yml:1: ${expected}`));
}

const lists = Array.from(
  { length: 9 },
  (_, i) => `l${i + 1}: &l${i + 1} [${'*l'.concat(`${i}, `).repeat(9)}]`,
);
for (const [what, yaml] of [
  ['grow a billion times', ['l0: &l0 [x]', ...lists].join('\n')],
  ['name nothing', 'upstreams: *all'],
  ['hold themselves', 'upstreams: { web: { tags: &a [*a] } }'],
] as const) {
  test(`refused: aliases that ${what}`, () =>
    assert.match(refusal(yaml), /^reloadless\.yml: .*alias[^\n]*$/i));
}

test('a fault of YAML is named with its line', () => {
  assert.match(refusal('upstreams:\n  web: [\n'), /^reloadless\.yml:3: Flow sequence/);
  assert.equal(refusal('owner: a\nowner: b\n'), 'reloadless.yml:2: Map keys must be unique');
});

/** All faults of a file. */
function faults(yaml: string): string[] {
  try {
    load(yaml);
  } catch (error) {
    return (error as ConfigError).faults;
  }
  return [];
}

test('all faults of a file are named at once, each with its line', () => {
  assert.deepEqual(
    faults(`
consul: { wait: 1h, adress: http://127.0.0.1:8500 }
openresty:
  - address: http://127.0.0.1:9410
  - address: ftp://127.0.0.1
    token_file: 1
upstreams:
  web: &web
    max_fails: many
    balance: hash
    tags:
      - prod
      - 7
  api: *web
  a/b: {}
  __proto__: {}
`),
    [
      '2: consul.wait: "1h" is not a duration from 1s to 10m',
      '2: consul.adress: not a key that can be set here; did you mean address?',
      '5: openresty.1.address: "ftp://127.0.0.1" is not http://..., https://... or unix:/PATH',
      '6: openresty.1.token_file: 1 is not a string of 1 to 4096 bytes without control characters',
      '8: upstreams.web.hash_key: missing, expected what to hash, such as $remote_addr, since balance is hash',
      '9: upstreams.web.max_fails: "many" is not an integer from 0 to 65535',
      '9: upstreams.api.max_fails: "many" is not an integer from 0 to 65535',
      '13: upstreams.web.tags.1: 7 is not a string of 1 to 4096 bytes without control characters',
      '13: upstreams.api.tags.1: 7 is not a string of 1 to 4096 bytes without control characters',
      '14: upstreams.api.hash_key: missing, expected what to hash, such as $remote_addr, since balance is hash',
      '15: upstreams.a/b: the key is not a name: 1 to 128 of A-Z a-z 0-9 . _ - but not . or ..',
      '16: upstreams.__proto__: not a key that can be set here',
    ].map((fault) => `reloadless.yml:${fault}`),
  );
});

test('a thousand faults are twenty-one lines', () => {
  const upstreams = Array.from({ length: 1000 }, (_, i) => `  s${i}: { port: 1 }\n`);
  const found = faults(`upstreams:\n${upstreams.join('')}`);
  assert.equal(found.length, 21);
  assert.equal(found.at(-1), 'and 980 more');
});

test('a key that is misspelt is told from one that is another', () => {
  const hint = (key: string) => refusal(`upstreams: { web: { ${key}: 1 } }`).split('; ')[1];
  for (const [key, meant] of [
    ['max_fail', 'max_fails'],
    ['max-fails', 'max_fails'],
    ['Balance', 'balance'],
    ['hold_emtpy', 'hold_empty'],
    ['services', 'service'],
  ] as const) {
    assert.equal(hint(key), `did you mean ${meant}?`);
  }
  for (const key of ['source', 'p', 'weight', 'x'.repeat(100)]) assert.equal(hint(key), undefined);
});

test('addresses that cannot be used are named with where they come from', () => {
  assert.match(refusal(web, { consul: 'ftp://x' }), /^--consul: "ftp:\/\/x" is not http:/);
  assert.match(refusal(web, {}, { CONSUL_HTTP_ADDR: 'http://' }), /^CONSUL_HTTP_ADDR: /);
  assert.match(
    refusal(`{ consul: { address: 'unix:x' }, ${web} }`),
    /^reloadless\.yml:1: consul\.address: "unix:x" is not http:/,
  );
  assert.match(
    refusal(`{ consul: { address: [a, 'unix:x'] }, ${web} }`),
    /^reloadless\.yml:1: consul\.address\.1: "unix:x" is not http:/,
  );
  assert.match(
    refusal(`{ openresty: [{ address: '' }], ${web} }`),
    /^reloadless\.yml:1: openresty\.0\.address: "" is not http:/,
  );
});

const badRules: [string, string][] = [
  ['{}', "discover: {} is not a rule: it needs a tag, a service ('*' is any) or a filter"],
  ['[]', 'discover: [] is not a rule or a list of rules'],
  ['web', 'discover: "web" is not a mapping of names to values'],
  [
    '[{ tag: a }, { tag: 1 }]',
    'discover.1.tag: 1 is not a string of 1 to 4096 bytes without control characters',
  ],
  ['{ tag: a, source: health }', 'discover.source: not a key that can be set here'],
  ['{ tag: a, balance: none }', 'discover.balance: "none" is not one of'],
  ['[{ tag: a, balance: hash }]', 'discover.0.hash_key: missing, expected what to hash'],
  [
    "{ service: '/(/' }",
    'discover.service: "/(/" is not a name in which * is any text, or a /regex/',
  ],
  ['{ tag: a, name: web }', 'discover.name: "web" is not a name with {service} in it once'],
  ["{ tag: a, name: '{service}-{service}' }", 'discover.name: "{service}-{service}" is not a name'],
  ["{ tag: a, name: 'a b{service}' }", 'discover.name: "a b{service}" is not a name'],
];

for (const [yaml, message] of badRules) {
  test(`refused: discover: ${yaml}`, () => {
    const said = refusal(`{ discover: ${yaml} }`);
    assert.equal(
      said.slice(0, `reloadless.yml:1: ${message}`.length),
      `reloadless.yml:1: ${message}`,
    );
  });
}

test('rules of discovery stand alone or in a list', () => {
  const one = load('discover: { tag: a, hold_empty: 5s }').discover;
  assert.deepEqual(load('discover: [{ tag: a, hold_empty: 5s }]').discover, one);
  assert.equal(one[0]?.upstream.holdFor, 5000);
});

test('no upstream is refused', () => {
  assert.match(refusal(''), /^no upstream is configured/);
});

test('over TLS each connection carries many services, and without it doorbells carry all', () => {
  const service = Array.from({ length: 745 }, (_, i) => `s${i}`);
  const file = (address: string) => `consul: { address: ${address}, max_connections: 3 }`;
  const why = 'upstreams: 745 services, but consul.max_connections of 3 carries 744';
  assert.equal(refusal(file('https://a'), { service }), why);
  assert.equal(refusal(file('https://a'), { service: service.slice(1) }), 'taken');
  const withRule = `{ ${file('https://a')}, discover: { tag: a } }`;
  const fewer = { service: service.slice(1) };
  assert.match(refusal(withRule, fewer), /^upstreams: 744 .* of 3 carries 743 and discovery$/);
  assert.equal(refusal(file('[https://a, http://b]'), { service }), 'taken');
  assert.equal(refusal(file('http://a'), { service }), 'taken');
});

test('a file that is not there is named', () => {
  assert.throws(
    () => readConfigFile('/no/such/file.yml'),
    /^ConfigError: \/no\/such\/file\.yml: ENOENT/,
  );
});

test("this machine's file is read where neither -c nor --service is given", (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'reloadless-'));
  t.after(() => rmSync(folder, { recursive: true }));
  assert.throws(() => loadConfig({}, {}, folder), /^ConfigError: no upstream is configured/);
  const path = join(folder, 'reloadless.yml');
  writeFileSync(path, 'openresty: [{ address: "http://a:1" }]\nupstreams: { web: }\n');
  const config = loadConfig({}, {}, folder);
  assert.deepEqual([config.file, [...config.upstreams.keys()]], [path, ['web']]);
  assert.equal(loadTargets({}, {}, folder)[0]?.endpoint.name, 'http://a:1');

  const service = loadConfig({ service: ['api'] }, {}, folder);
  assert.deepEqual([service.file, [...service.upstreams.keys()]], [undefined, ['api']]);
  const other = join(folder, 'other.yml');
  writeFileSync(other, 'upstreams: { other: }\n');
  assert.equal(loadConfig({ config: other }, {}, folder).file, other);

  writeFileSync(path, 'upstreams: { web: { x: 1 } }\n');
  assert.throws(() => loadConfig({}, {}, folder), /upstreams\.web\.x: not a key/);
});

test('durations', () => {
  const good: [unknown, number][] = [
    ['500ms', 0.5],
    ['60s', 60],
    ['2m', 120],
    ['1.5h', 5400],
    ['0s', 0],
    [0, 0],
    [1.2345, 1.235],
    [86_400, 86_400],
  ];
  for (const [value, seconds] of good) assert.equal(parseDuration(value), seconds, String(value));
  for (const value of ['', '60', 's', '-1s', '1d', '25h', ' 1s', -1, 86_401, Number.NaN, null]) {
    assert.equal(parseDuration(value), undefined, String(value));
  }
});

test('settle, on_change and pid_file are off unless they are written', () => {
  const plain = resolveConfig({ service: ['web'] }, {}, {});
  assert.equal(plain.on_change, undefined);
  assert.equal(plain.pid_file, undefined);
  const config = load(`
settle: { min: 1s, max: 5s }
upstreams: { web: , api: { settle: { min: 0, max: 0 } } }
discover: { tag: x }
on_change: { command: [logger, changed] }
pid_file: /run/reloadless/agent.pid
`);
  assert.deepEqual(config.upstreams.get('web')?.settle, { min: 1000, max: 5000 });
  assert.deepEqual(config.upstreams.get('api')?.settle, { min: 0, max: 0 });
  assert.deepEqual(config.discover[0]?.upstream.settle, { min: 1000, max: 5000 });
  assert.deepEqual(config.on_change, { command: ['logger', 'changed'], timeout: 30_000 });
  assert.equal(config.pid_file, '/run/reloadless/agent.pid');
});

test('a bad settle or on_change is named', () => {
  const bad = (line: string) => refusal(`${web}\n${line}`);
  assert.match(
    bad('settle: { min: 5s, max: 1s }'),
    /settle\.max: "1s" is not a duration that is not/,
  );
  assert.match(bad('settle: { min: 5s }'), /settle\.max/);
  assert.match(bad('on_change: { command: logger }'), /on_change\.command/);
  assert.match(bad('on_change: { command: [] }'), /a list: a program and its arguments/);
  assert.match(bad('on_change: { command: [a], timeout: 0 }'), /on_change\.timeout/);
});
