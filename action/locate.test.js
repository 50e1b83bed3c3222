'use strict';

const test = require('node:test');
const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { locate, parseSums, target } = require('./locate.js');

const program = Buffer.from('#!/bin/sh\necho "$@"\n');
const digest = createHash('sha256').update(program).digest('hex');

// stage is a checkout with digests, an empty tool cache, and a release that answers with these bodies in turn.
function stage(t, { sums = `# release https://example.com/v1/\n${digest}  attic-action_linux_amd64\n`, answers = [program] } = {}) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'locate-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const root = path.join(dir, 'action');
  fs.mkdirSync(root);
  if (sums !== null) fs.writeFileSync(path.join(root, 'SHA256SUMS'), sums);
  const asked = [];
  const fetch = async (url) => {
    asked.push(url);
    const answer = answers[Math.min(asked.length, answers.length) - 1];
    if (answer instanceof Error) throw answer;
    return typeof answer === 'number' ? new Response('', { status: answer }) : new Response(answer);
  };
  const env = { RUNNER_TOOL_CACHE: path.join(dir, 'cache'), RUNNER_TEMP: dir };
  const build = async (source, out) => `built ${path.relative(dir, source)} to ${path.relative(dir, out)}`;
  return { env, platform: 'linux', arch: 'x64', root, log: () => {}, fetch, build, asked };
}

test('a binary that is named is taken', async (t) => {
  const s = stage(t);
  s.env.ATTIC_ACTION_BINARY = '/x/y';
  assert.equal(await locate(s), '/x/y');
  assert.deepEqual(s.asked, []);
});

test('a release is downloaded once, and is executable', async (t) => {
  const s = stage(t);
  const file = await locate(s);
  assert.deepEqual(fs.readFileSync(file), program);
  assert.equal(fs.statSync(file).mode & 0o777, 0o755 & ~process.umask());
  assert.equal(await locate(s), file);
  assert.deepEqual(s.asked, ['https://example.com/v1/attic-action_linux_amd64']);
});

test('a changed or truncated download is refused and not kept', async (t) => {
  for (const body of ['tampered', program.subarray(0, 5), '']) {
    const s = stage(t, { answers: [body] });
    await assert.rejects(locate(s), /has SHA-256 .* is committed/);
    assert.equal(fs.existsSync(s.env.RUNNER_TOOL_CACHE), false);
  }
});

test('a changed file in the tool cache is replaced', async (t) => {
  const s = stage(t);
  const file = await locate(s);
  fs.writeFileSync(file, 'tampered');
  assert.equal(await locate(s), file);
  assert.deepEqual(fs.readFileSync(file), program);
  assert.equal(s.asked.length, 2);
});

test('without a network the tool cache is enough, and nothing else is', async (t) => {
  const s = stage(t);
  await locate(s);
  s.fetch = async () => { throw new TypeError('fetch failed'); };
  await locate(s);
  fs.rmSync(s.env.RUNNER_TOOL_CACHE, { recursive: true });
  await assert.rejects(locate(s), /download https:\/\/example\.com\/v1\/attic-action_linux_amd64: fetch failed/);
});

test('a busy server is asked again, a missing file is not', async (t) => {
  const busy = stage(t, { answers: [503, program] });
  await locate(busy);
  assert.equal(busy.asked.length, 2);
  const missing = stage(t, { answers: [404] });
  await assert.rejects(locate(missing), /status 404/);
  assert.equal(missing.asked.length, 1);
});

test('without digests it is built from source', async (t) => {
  assert.equal(await locate(stage(t, { sums: null })), 'built  to attic-action_linux_amd64');
});

test('digests for other machines, and none that can be read, are errors', async (t) => {
  await assert.rejects(locate({ ...stage(t), arch: 'arm64' }), /names no attic-action_linux_arm64/);
  await assert.rejects(locate({ ...stage(t), platform: 'win32' }), /no attic-action for win32/);
  assert.throws(() => parseSums('# release http://example.com\n'), /no line says/);
  assert.throws(() => parseSums(`# release https://example.com\n${digest}  ../../x\n`), /can't read the line/);
});

test('machines are named as releases name them', () => {
  assert.equal(target('linux', 'x64'), 'attic-action_linux_amd64');
  assert.equal(target('darwin', 'arm64'), 'attic-action_darwin_arm64');
});

// serve runs a server on this machine and returns its URL.
async function serve(t, handler) {
  const server = http.createServer(handler).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  return `http://127.0.0.1:${server.address().port}`;
}

// over sends what is asked of the release to a real server.
function over(s, base) {
  s.fetch = (url, options) => fetch(base + new URL(url).pathname, options);
  return s;
}

test('a download is followed where a release sends it', async (t) => {
  const base = await serve(t, (req, res) => {
    if (req.url.startsWith('/stored')) return res.end(program);
    res.writeHead(302, { location: '/stored?signature=x' }).end();
  });
  assert.deepEqual(fs.readFileSync(await locate(over(stage(t), base))), program);
});

test('a download that breaks off is tried again, and is not kept', async (t) => {
  let times = 0;
  const base = await serve(t, (req, res) => {
    times++;
    res.writeHead(200, { 'content-length': program.length });
    res.write(program.subarray(0, 5), () => res.destroy());
  });
  const s = over(stage(t), base);
  await assert.rejects(locate(s), /download .*attic-action_linux_amd64: /);
  assert.equal(times, 3);
  assert.equal(fs.existsSync(s.env.RUNNER_TOOL_CACHE), false);
});

test('a download without an end is broken off', async (t) => {
  let stopped;
  const ended = new Promise((done) => { stopped = done; });
  const base = await serve(t, (req, res) => {
    const part = Buffer.alloc(8 << 20);
    const more = () => { while (res.write(part)); };
    res.on('drain', more).on('close', stopped);
    more();
  });
  await assert.rejects(locate(over(stage(t), base)), /it is too large/);
  await ended;
});

test('the post step finds what the main step used', async (t) => {
  const released = stage(t);
  const file = await locate(released);
  released.fetch = async () => { throw new TypeError('fetch failed'); };
  assert.equal(await locate({ ...released, again: true }), file);
  const source = stage(t, { sums: null });
  const built = path.join(source.env.RUNNER_TEMP, 'attic-action_linux_amd64');
  source.build = async (from, out) => { fs.writeFileSync(out, program); return out; };
  assert.equal(await locate(source), built);
  source.build = async () => assert.fail('it is built again');
  assert.equal(await locate({ ...source, again: true }), built);
});

// phase runs main.js or post.js with a program that says what it was called with.
function phase(t, script, env) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'main-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const binary = path.join(dir, 'program');
  fs.writeFileSync(binary, '#!/bin/sh\necho "got $*"\nexit 7\n', { mode: 0o755 });
  return spawnSync(process.execPath, [path.join(__dirname, script)], { env: { ...process.env, ATTIC_ACTION_BINARY: binary, ...env }, encoding: 'utf8' });
}

test('main.js hands over "main" and the exit code', (t) => {
  const good = phase(t, 'main.js', {});
  assert.equal(good.status, 7);
  assert.equal(good.stdout, 'got main\n');
  const bad = phase(t, 'main.js', { ATTIC_ACTION_BINARY: '/no\nne' });
  assert.equal(bad.status, 1);
  assert.match(bad.stdout, /^::error title=attic-action::start .*no%0Ane: [^\n]*\n$/);
});

test('post.js hands over "post", if there was a main step', (t) => {
  assert.equal(phase(t, 'post.js', { STATE_dir: '/x' }).stdout, 'got post\n');
  assert.equal(phase(t, 'post.js', { STATE_roots: '/x' }).stdout, 'got post\n');
  const none = phase(t, 'post.js', { STATE_dir: '' });
  assert.equal(none.status, 0);
  assert.equal(none.stdout, '');
});
