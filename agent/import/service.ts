/** A service of Consul, as a name or a template asks for it. */
export interface Service {
  service: string;
  tags: string[];
  datacenter?: string;
  /** The worst health that serves. */
  min_health?: 'passing' | 'warning';
  /** What of it Reloadless has not, in words. */
  lost: string[];
}

/**
 * Reads what follows `range` in a template of consul-template: `service "web"`,
 * with a tag, a datacenter and the states of health that serve.
 *
 * @param name what stands for a service's name where the template has it from a list
 * @returns undefined when it is anything else
 */
export function serviceOfTemplate(expression: string, name?: string): Service | undefined {
  const form = /^(?:\$\w+\s*,\s*)?(?:\$\w+\s*:=\s*)?service\s+(\S+)(?:\s+"([\w,|]*)")?$/;
  const [, query = '', filter] = form.exec(expression) ?? [];
  if (name !== undefined && (query === '.Name' || query === '$.Name')) {
    return { service: name, tags: [], ...health(filter) };
  }
  const asked = /^"(?:([\w.-]+)\.)?([\w-]+)(?:@([\w-]+))?(~[\w-]+)?(?:\|([\w,|]+))?"$/.exec(query);
  const [, tag, service, datacenter, near, inQuery] = asked ?? [];
  if (service === undefined) return undefined;
  const { min_health, lost } = health(filter ?? inQuery);
  if (near !== undefined) lost.push(`${near}: order by distance`);
  return {
    service,
    tags: tag === undefined ? [] : [tag],
    ...(datacenter !== undefined && { datacenter }),
    min_health,
    lost,
  };
}

function health(filter = 'passing'): Required<Pick<Service, 'min_health' | 'lost'>> {
  const states = filter.split(/[,|]/);
  const others = states.filter((state) => state !== 'passing' && state !== 'warning');
  const lost = others.map((state) => `health "${state}": a critical instance never serves`);
  return { min_health: filter === 'passing' ? 'passing' : 'warning', lost };
}

/**
 * Reads a name of Consul's DNS: `web.service.consul`, with a tag and a datacenter.
 *
 * @param srv the `service=` of nginx
 * @returns undefined when it is no name of a service
 */
export function serviceOfDns(host: string, srv?: string): Service | undefined {
  const form = /^(.+)\.service\.(?:([\w-]+?)(?:\.dc)?\.)?consul\.?$/i;
  // nginx asks for `_web._tcp` where the service has no dot: that is web.
  const [, names, datacenter] = form.exec(srv === undefined ? host : `${srv}.${host}`) ?? [];
  if (names === undefined) return undefined;
  const [, rfc, protocol] = /^_([\w-]+)\._([\w-]+)$/.exec(names) ?? [];
  const dot = names.lastIndexOf('.');
  const tag = rfc === undefined ? names.slice(0, Math.max(dot, 0)) : protocol;
  return {
    service: rfc ?? names.slice(dot + 1),
    tags: tag === undefined || tag === '' || tag === 'tcp' ? [] : [tag],
    ...(datacenter !== undefined && { datacenter }),
    lost: [],
  };
}
