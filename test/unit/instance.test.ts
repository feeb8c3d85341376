import assert from 'node:assert/strict';
import { test } from 'node:test';
import { earlierAddresses, hostNames, toCandidates } from '../../agent/source/health/candidates.ts';
import { readInstances } from '../../agent/source/health/instance.ts';

interface Fields {
  node?: string;
  nodeAddress?: string;
  checks?: [id: string, status: string][];
  service?: object;
}

function entry({ node = 'n1', nodeAddress = '10.0.0.1', checks = [], service = {} }: Fields = {}) {
  return {
    Node: { Node: node, Address: nodeAddress, Datacenter: 'dc1' },
    Service: {
      ID: 'web-1',
      Service: 'web',
      Address: '10.0.0.5',
      Port: 8080,
      Weights: { Passing: 10, Warning: 3 },
      Meta: {},
      Tags: null,
      ...service,
    },
    Checks: checks.map(([CheckID, Status]) => ({ CheckID, Status, Output: 'x' })),
  };
}

const portNamed = (port: string | undefined) => (port === undefined ? {} : { port });

function only(fields: Fields) {
  const { instances, malformed } = readInstances([entry(fields)]);
  assert.deepEqual(malformed, []);
  const [instance] = instances;
  if (instance === undefined) throw new Error('no instance');
  return instance;
}

test('address, port, id and weight', () => {
  assert.deepEqual(only({}), {
    id: 'web-1',
    host: '10.0.0.5',
    port: 8080,
    health: 'passing',
    peer: { weight: 10, id: 'web-1' },
    passing: 10,
    balance: undefined,
  });
});

test('without an address of its own an instance has its node’s', () => {
  assert.equal(only({ service: { Address: '' } }).host, '10.0.0.1');
});

test('without weights it has 1', () => {
  assert.equal(only({ service: { Weights: undefined } }).peer.weight, 1);
});

test('the worst check counts, and a warning has its own weight', () => {
  const health = (...checks: [string, string][]) => only({ checks }).health;
  assert.equal(health(), 'passing');
  assert.equal(health(['serfHealth', 'passing'], ['a', 'warning']), 'warning');
  assert.equal(health(['a', 'warning'], ['serfHealth', 'critical']), 'critical');
  assert.equal(only({ checks: [['a', 'warning']] }).peer.weight, 3);
});

test('maintenance, of the node and of the service, is more than critical', () => {
  for (const id of ['_node_maintenance', '_service_maintenance:web-1']) {
    assert.equal(
      only({
        checks: [
          ['a', 'critical'],
          [id, 'critical'],
        ],
      }).health,
      'maintenance',
    );
  }
});

test('meta gives the zone and makes a backup', () => {
  const meta = (Meta: object) => only({ service: { Meta } }).peer;
  assert.equal(meta({ zone: 'a' }).zone, 'a');
  assert.equal(meta({ zone: '' }).zone, undefined);
  assert.equal(meta({ backup: 'true' }).backup, true);
  assert.equal(meta({ backup: 'false' }).backup, undefined);
});

test('an instance that makes no sense is left out and named; the others stay', () => {
  const { instances, malformed } = readInstances([
    entry({ service: { ID: 'a', Port: 0 } }),
    entry({ service: { ID: 'b', Weights: { Passing: -1, Warning: 1 } } }),
    entry({ service: { ID: 'c' }, checks: [['x', 'unheard of']] }),
    { Node: { Node: 'n1' } },
    null,
    entry({ service: { ID: 'd' } }),
  ]);
  assert.deepEqual(
    instances.map(({ id }) => id),
    ['d'],
  );
  assert.deepEqual(malformed, [
    'a on n1: Service.Port: 0 is not an integer from 1 to 65535',
    'b on n1: Service.Weights.Passing: -1 is not an integer from 0 to 65535',
    'c on n1: Checks.0.Status: "unheard of" is not passing, warning or critical',
    'an instance on n1: Node.Address: missing, expected a string',
    'an instance on an unknown node: null is not a mapping of names to values',
  ]);
});

test('the order of the answer does not matter', () => {
  const entries = ['b', 'a', 'c'].flatMap((id) =>
    ['n2', 'n1'].map((node) => entry({ node, service: { ID: id, Address: `${node}.example` } })),
  );
  assert.deepEqual(readInstances(entries), readInstances(entries.toReversed()));
});

test('a host name becomes all its addresses, in canonical form', () => {
  const { instances } = readInstances([
    entry({ service: { ID: 'a', Address: 'web.example' } }),
    entry({ service: { ID: 'b', Address: 'FD00:0:0::7' } }),
    entry({ service: { ID: 'c', Address: 'nowhere.example' } }),
  ]);
  assert.deepEqual(hostNames(instances), ['web.example', 'nowhere.example']);
  const addresses = new Map([['web.example', ['10.1.0.1', '10.1.0.2']]]);
  assert.deepEqual(
    toCandidates(instances, addresses).map(({ address, peer }) => `${peer.id} ${address}`),
    ['a 10.1.0.1:8080', 'a 10.1.0.2:8080', 'b [fd00::7]:8080'],
  );
});

test('an ID longer than the field holds, or with what it cannot hold, serves all the same', () => {
  const id = (ID: string) => only({ service: { ID } }).peer.id;
  assert.equal(id('€'.repeat(100)), '€'.repeat(85));
  assert.equal(id('web\n1'), 'web?1');
  assert.equal(id('web\ud800'), 'web\ufffd');
});

test('an address that nginx cannot connect to is left out and named', () => {
  const { instances, malformed } = readInstances([
    entry({ service: { ID: 'a', Address: 'fe80::1%eth0' } }),
    entry({ service: { ID: 'b', Address: '' }, nodeAddress: 'fe80::1%1' }),
    entry({ service: { ID: 'c', Address: 'http://10.0.0.5' } }),
    entry({ service: { ID: 'd', Address: '' }, nodeAddress: '' }),
    entry({ service: { ID: 'e', Address: `${'x'.repeat(300)}.example` } }),
  ]);
  assert.deepEqual(instances, []);
  const why = 'is not a host name or an IP address without a zone';
  assert.deepEqual(malformed, [
    `a on n1: Service.Address: "fe80::1%eth0" ${why}`,
    `b on n1: Node.Address: "fe80::1%1" ${why}`,
    `c on n1: Service.Address: "http://10.0.0.5" ${why}`,
    `d on n1: Node.Address: "" ${why}`,
    `e on n1: Service.Address: "${'x'.repeat(76)}... ${why}`,
  ]);
});

test('a message about an instance holds no text without a bound', () => {
  const long = 'x'.repeat(100_000);
  const { malformed } = readInstances([
    entry({ node: long, service: { ID: long, Port: long } }),
    entry({ service: { ID: { toString: 1 }, Meta: { [long]: { [long]: 1 } } } }),
    entry({ service: { Meta: { [long]: 1 } } }),
  ]);
  assert.equal(malformed.length, 3);
  for (const line of malformed) assert(line.length < 500, line.slice(0, 500));
});

test('a host name is known by the peers of before: those of the same ID and port', () => {
  const { instances } = readInstances([
    entry({ service: { ID: 'a', Address: 'web.example' } }),
    entry({ service: { ID: 'b', Address: 'web.example' } }),
    entry({ service: { ID: 'c', Address: 'other.example', Port: 81 } }),
    entry({ service: { ID: 'd', Address: '10.0.0.9' } }),
  ]);
  const peers = {
    '10.1.0.1:8080': { id: 'a' },
    '[fd00::7]:8080': { id: 'b' },
    '10.1.0.3:8080': { id: 'c' },
    '10.1.0.4:8080': { id: 'd' },
    '10.1.0.5:8080': {},
  };
  assert.deepEqual(
    earlierAddresses(instances, peers),
    new Map([
      ['web.example', ['10.1.0.1', 'fd00::7']],
      ['other.example', []],
    ]),
  );
});

/** An instance of Consul 1.22 and newer. */
function several(...ports: [name: string, port: number, isDefault?: boolean][]) {
  const Ports = ports.map(([Name, Port, Default = false]) => ({ Name, Port, Default }));
  return entry({ service: { Port: 0, Ports } });
}

test('of several ports it has the default one, the only one, or the one that is asked for', () => {
  const ports = (raw: unknown, name?: string) =>
    readInstances([raw], portNamed(name)).instances.map(({ port }) => port);
  const two = several(['grpc', 9090], ['http', 8080, true]);
  assert.deepEqual(ports(two), [8080]);
  assert.deepEqual(ports(two, 'grpc'), [9090]);
  assert.deepEqual(ports(several(['grpc', 9090])), [9090]);
  assert.deepEqual(
    ports(entry({ service: { Port: undefined, Ports: [{ Name: 'a', Port: 7 }] } })),
    [7],
  );
  assert.deepEqual(ports(entry({ service: { Ports: null } })), [8080]);
});

test('an instance without the port is left out, and says which it has', () => {
  const why = (raw: unknown, name?: string) => readInstances([raw], portNamed(name)).malformed[0];
  const two = several(['grpc', 9090], ['http', 8080]);
  assert.equal(why(two, 'admin'), 'web-1 on n1: no port is named "admin": it has grpc, http');
  assert.equal(why(two), 'web-1 on n1: none of the ports grpc, http is the default one');
  assert.equal(why(entry(), 'http'), 'web-1 on n1: no port is named "http": it has none');
  assert.equal(
    why(entry({ service: { Port: 0 } })),
    'web-1 on n1: Service.Port: 0 is not an integer from 1 to 65535',
  );
});
