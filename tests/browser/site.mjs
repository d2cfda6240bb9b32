// A local site of 60 resources behind one page: images, scripts, chunked pages; an HTTPS page and a WebSocket.
// It counts what reaches it.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { WebSocketServer } from 'ws';

export const RESOURCES = 60;
const IMAGES = 30;
const SCRIPTS = 20;
const CHUNKED = 8;
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==', 'base64');

/** Targets that must never come from a cache. */
export const NEVER_CACHED = ['/private', '/cookie'];

function page(tls) {
  const many = (count, row) => Array.from({ length: count }, (_, n) => row(n)).join('\n');
  return `<!DOCTYPE html><meta charset="utf-8"><title>loading</title>
<link rel="icon" href="data:,">
<script>window.seen = new Set(); window.failed = [];
const done = (name) => { seen.add(name); };
const fail = (name) => { failed.push(name); };</script>
${many(IMAGES, (n) => `<img src="/image/${n}.png" onload="done('image${n}')" onerror="fail('image${n}')">`)}
${many(SCRIPTS, (n) => `<script src="/script/${n}.js" onerror="fail('script${n}')"></script>`)}
<script>
const text = async (name, url) => {
  try { const r = await fetch(url); if (!r.ok) throw r.status; return await r.text(); } catch (e) { fail(name + ' ' + e); }
};
(async () => {
  for (let n = 0; n < ${CHUNKED}; n++) {
    if ((await text('chunked' + n, '/chunked/' + n))?.length === 40000) done('chunked' + n); else fail('length of chunked' + n);
  }
  if (await text('private', '/private')) done('private');
  if (await text('cookie', '/cookie')) done('cookie');
  const socket = new WebSocket('ws://' + location.host + '/echo');
  socket.onopen = () => socket.send('hello');
  socket.onerror = () => fail('websocket');
  socket.onmessage = (event) => { if (event.data === 'hello') done('websocket'); socket.close(); };
  if ((await text('https', '${tls}/')) === 'over tls') done('https');
})();
</script>`;
}

export async function startSite() {
  const counts = new Map();
  const fresh = { 'Cache-Control': 'public, max-age=600' };
  let tlsOrigin = '';
  const answer = (request, response) => {
    const target = request.url;
    counts.set(target, (counts.get(target) ?? 0) + 1);
    if (target === '/') return response.writeHead(200, { 'Content-Type': 'text/html', ...fresh }).end(page(tlsOrigin));
    if (target.startsWith('/image/')) return response.writeHead(200, { 'Content-Type': 'image/png', ...fresh }).end(PNG);
    if (target.startsWith('/script/')) {
      const name = target.match(/\d+/)[0];
      return response.writeHead(200, { 'Content-Type': 'text/javascript', ...fresh }).end(`done('script${name}');`);
    }
    if (target.startsWith('/chunked/')) {
      response.writeHead(200, { 'Content-Type': 'text/plain', ...fresh });
      for (let n = 0; n < 4; n++) response.write('x'.repeat(10000));
      return response.end();
    }
    if (target === '/private') return response.writeHead(200, { 'Cache-Control': 'private, max-age=600' }).end('yours');
    if (target === '/cookie') return response.writeHead(200, { 'Set-Cookie': 'a=b' }).end('cookie');
    return response.writeHead(404).end();
  };
  const plain = http.createServer(answer);
  plain.keepAliveTimeout = 5000;
  new WebSocketServer({ server: plain, path: '/echo' }).on('connection', (socket) => {
    socket.on('message', (message) => socket.send(message.toString()));
  });
  const secure = https.createServer(certificate(), (_, response) => {
    response.writeHead(200, { 'Access-Control-Allow-Origin': '*' }).end('over tls');
  });
  const listen = (server) => new Promise((ready) => server.listen(0, '127.0.0.1', () => ready(server.address().port)));
  const port = await listen(plain);
  const tlsPort = await listen(secure);
  tlsOrigin = `https://127.0.0.1:${tlsPort}`;
  return {
    url: `http://127.0.0.1:${port}/`,
    ports: [port, tlsPort],
    counts,
    stop() {
      for (const server of [plain, secure]) { server.closeAllConnections(); server.close(); }
    },
  };
}

function certificate() {
  const folder = mkdtempSync(path.join(tmpdir(), 'baton-certificate-'));
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => path.join(folder, name));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert, '-days', '2',
    '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'], { stdio: 'ignore' });
  const pair = { key: readFileSync(key), cert: readFileSync(cert) };
  rmSync(folder, { recursive: true });
  return pair;
}
