// The real binary as a forward proxy on a free port.
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const BINARY = process.env.BATON ?? path.join(import.meta.dirname, '../../target/debug/baton');

export async function startBaton(site, workers) {
  const logs = mkdtempSync(path.join(tmpdir(), 'baton-logs-'));
  const allow = site.ports.map((port) => `"127.0.0.1:${port}"`).join(',');
  const child = spawn(BINARY, ['forward', '--listen', '127.0.0.1:0', '--workers', String(workers), '--log-dir', logs,
    '--cache', `dir:${path.join(logs, 'cache')}`,
    '--set', `access.destinations_allow=[${allow}]`, '--set', `access.connect_ports=[${site.ports}]`],
  { stdio: ['ignore', 'ignore', 'pipe'] });
  const port = await new Promise((ready, failed) => {
    let text = '';
    const limit = setTimeout(() => failed(new Error(`baton did not start: ${text}`)), 20_000);
    child.once('exit', () => failed(new Error(`baton ended: ${text}`)));
    child.stderr.on('data', (octets) => {
      text += octets;
      const found = text.match(/listening on http:\/\/127\.0\.0\.1:(\d+)/);
      if (found) { clearTimeout(limit); ready(Number(found[1])); }
    });
  });
  return {
    port,
    workers: () => execFileSync('ps', ['-o', 'pid=,args=', '--ppid', String(child.pid)], { encoding: 'utf8' })
      .split('\n').filter((line) => line.includes('baton: worker')).map((line) => Number.parseInt(line, 10)),
    accessLog: () => readdirSync(logs).filter((name) => name.startsWith('access-'))
      .map((name) => readFileSync(path.join(logs, name), 'utf8')).join(''),
    async stop() {
      child.removeAllListeners('exit');
      const ended = new Promise((done) => child.once('exit', done));
      child.kill('SIGINT');
      await ended;
      rmSync(logs, { recursive: true });
    },
  };
}
