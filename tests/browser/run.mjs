// Real browsers through the real binary: a page of 60 resources, twice, and once more after a worker was killed.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import puppeteer from 'puppeteer-core';
import { startBaton } from './baton.mjs';
import { NEVER_CACHED, RESOURCES, startSite } from './site.mjs';

const LIMIT = 60_000;
// Both browsers call home through whatever proxy they have; nothing is there, and baton refuses what is not allowed.
const BROWSERS = {
  firefox: (port) => ({
    browser: 'firefox',
    executablePath: '/usr/bin/firefox-esr',
    extraPrefsFirefox: {
      'network.proxy.type': 1,
      'network.proxy.http': '127.0.0.1',
      'network.proxy.http_port': port,
      'network.proxy.ssl': '127.0.0.1',
      'network.proxy.ssl_port': port,
      'network.proxy.no_proxies_on': '',
      'network.proxy.allow_hijacking_localhost': true,
      'network.captive-portal-service.enabled': false,
      'network.connectivity-service.enabled': false,
      'app.normandy.enabled': false,
      'datareporting.policy.dataSubmissionEnabled': false,
      'browser.safebrowsing.update.enabled': false,
    },
  }),
  chromium: (port) => ({
    browser: 'chrome',
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', `--proxy-server=127.0.0.1:${port}`, '--proxy-bypass-list=<-loopback>'],
  }),
};

/** Loads the page in a browser with an empty profile: nothing comes from a cache of its own. */
async function load(options, url) {
  const browser = await puppeteer.launch({ headless: true, acceptInsecureCerts: true, timeout: LIMIT, ...options });
  try {
    const page = await browser.newPage();
    await page.goto(url, { waitUntil: 'load', timeout: LIMIT });
    await page.waitForFunction((all) => window.failed.length > 0 || window.seen.size === all,
      { timeout: LIMIT, polling: 100 }, RESOURCES + 2);
    assert.deepEqual(await page.evaluate(() => window.failed), []);
  } finally {
    await browser.close();
  }
}

for (const [name, options] of Object.entries(BROWSERS)) {
  test(`${name}: the second load comes from the cache, except what must not`, { timeout: 4 * LIMIT }, async () => {
    const { executablePath } = options(0);
    assert.ok(existsSync(executablePath), `${executablePath} is missing: scripts/check installs it`);
    const site = await startSite();
    const baton = await startBaton(site, 1);
    try {
      await load(options(baton.port), site.url);
      const first = new Map(site.counts);
      assert.equal(first.size, RESOURCES + 1, 'the page and each of its resources reached the site');
      await load(options(baton.port), site.url);
      for (const [target, count] of site.counts) {
        const expected = first.get(target) + (NEVER_CACHED.includes(target) ? 1 : 0);
        assert.equal(count, expected, `${target} reached the site ${count} times`);
      }
      assert.match(baton.accessLog(), /"CONNECT 127\.0\.0\.1:\d+ HTTP\/1\.1" 200/);
    } finally {
      await baton.stop();
      site.stop();
    }
  });

  test(`${name}: no request is lost when a worker is killed between the loads`, { timeout: 4 * LIMIT }, async () => {
    const site = await startSite();
    const baton = await startBaton(site, 2);
    try {
      await load(options(baton.port), site.url);
      const workers = baton.workers();
      assert.equal(workers.length, 2);
      process.kill(workers[0], 'SIGKILL');
      await load(options(baton.port), site.url);
    } finally {
      await baton.stop();
      site.stop();
    }
  });
}
