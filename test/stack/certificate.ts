import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

export interface Certificate {
  cert: string;
  key: string;
}

/** Makes a certificate of loopback that signs itself. @returns the paths of its files */
export function certify(folder: string, name = 'loopback'): Certificate {
  const [cert, key] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)];
  const of = [
    '-days',
    '2',
    '-subj',
    `/CN=${name}`,
    '-addext',
    'subjectAltName=IP:127.0.0.1,IP:::1',
  ];
  const how = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  execFileSync('openssl', ['req', ...how, ...of, '-keyout', key, '-out', cert], { stdio: 'pipe' });
  return { cert, key };
}
