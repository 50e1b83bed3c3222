// Finds the program for a machine, in this order:
//
//   $ATTIC_ACTION_BINARY   names it outright: tests, and runners without a network
//   SHA256SUMS             beside this file: the digests of a release. What is downloaded must have the digest of its name;
//                          what has it is kept in the runner's tool cache, and is checked again when it is taken from there
//   go build               of the action's own checkout, where no digests are committed: branches and forks
'use strict';

const { createHash } = require('node:crypto');
const { execFile } = require('node:child_process');
const { promisify } = require('node:util');
const fs = require('node:fs/promises');
const path = require('node:path');

const systems = { linux: 'linux', darwin: 'darwin' };
const machines = { x64: 'amd64', arm64: 'arm64' };
const sizeMax = 256 << 20; // bytes of a download; the program has a tenth of that

// target names the program of a machine as releases do.
function target(platform, arch) {
  const system = systems[platform], machine = machines[arch];
  if (!system || !machine) throw new Error(`there is no attic-action for ${platform} on ${arch}: it runs on Linux and macOS, x64 and arm64`);
  return `attic-action_${system}_${machine}`;
}

// parseSums reads SHA256SUMS as sha256sum writes it, under a line "# release <URL of the release's files>".
function parseSums(text) {
  const sums = { url: '', digests: {} };
  for (const line of text.split('\n')) {
    const release = /^# release (https:\/\/\S+)$/.exec(line);
    const digest = /^([0-9a-f]{64}) [ *]([A-Za-z0-9._-]+)$/.exec(line);
    if (release) sums.url = release[1].replace(/\/$/, '');
    else if (digest) sums.digests[digest[2]] = digest[1];
    else if (line.trim() !== '' && !line.startsWith('#')) throw new Error(`SHA256SUMS: can't read the line ${JSON.stringify(line)}`);
  }
  if (!sums.url) throw new Error('SHA256SUMS: no line says "# release https://…"');
  return sums;
}

// locate returns the program's path. again is for the post step, which takes what the main step built.
async function locate({ env, platform, arch, root, log, again = false, fetch = globalThis.fetch, build = goBuild }) {
  if (env.ATTIC_ACTION_BINARY) return env.ATTIC_ACTION_BINARY;
  const name = target(platform, arch);
  const temp = env.RUNNER_TEMP || require('node:os').tmpdir();
  const sums = await read(path.join(root, 'SHA256SUMS'));
  if (sums === null) {
    const built = path.join(temp, name);
    if (again && await read(built) !== null) return built;
    log('attic-action: no release is committed here, so it is built from source');
    return build(path.dirname(root), built);
  }
  const { url, digests } = parseSums(sums.toString());
  const digest = digests[name];
  if (!digest) throw new Error(`SHA256SUMS names no ${name}`);
  // The digest is in the name, so another version never finds this one.
  const dir = path.join(env.RUNNER_TOOL_CACHE || temp, 'attic-action', digest);
  const file = path.join(dir, name);
  if (await matches(file, digest)) return file;
  const bytes = await download(fetch, `${url}/${name}`);
  const got = sha256(bytes);
  if (got !== digest) throw new Error(`${url}/${name} has SHA-256 ${got}, and ${digest} is committed: it was changed, or cut off`);
  await fs.mkdir(dir, { recursive: true });
  const partial = `${file}.${process.pid}`;
  await fs.writeFile(partial, bytes, { mode: 0o755 });
  await fs.rename(partial, file); // whole or not at all, whoever else does the same
  return file;
}

// download fetches a file, thrice at most, into memory.
async function download(fetch, url) {
  for (let attempt = 1; ; attempt++) {
    try {
      const res = await fetch(url, { signal: AbortSignal.timeout(120_000) });
      if (!res.ok) throw Object.assign(new Error(`status ${res.status}`), { final: res.status < 500 && res.status !== 429 });
      return await body(res);
    } catch (err) {
      if (err.final || attempt === 3) throw new Error(`download ${url}: ${err.cause?.message ?? err.message}`);
      await new Promise((done) => setTimeout(done, attempt * 500 * (1 + Math.random())));
    }
  }
}

// body reads an answer, and no more of it than a program can have: without a length it might never end.
async function body(res) {
  const tooLarge = Object.assign(new Error('it is too large'), { final: true });
  if (Number(res.headers.get('content-length') ?? 0) > sizeMax) throw tooLarge;
  const parts = [];
  let size = 0;
  for await (const part of res.body) {
    size += part.length;
    if (size > sizeMax) throw tooLarge;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function goBuild(source, out) {
  const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-buildvcs=false -trimpath' };
  try {
    await promisify(execFile)('go', ['build', '-o', out, './cmd/action'], { cwd: source, env });
  } catch (err) {
    if (err.code === 'ENOENT') throw new Error('this version of attic-action comes without a program; put actions/setup-go before it, or use a release such as @v1');
    throw new Error(`go build of attic-action: ${String(err.stderr || err.message).trim()}`);
  }
  return out;
}

async function matches(file, digest) {
  const bytes = await read(file);
  return bytes !== null && sha256(bytes) === digest;
}

async function read(file) {
  try {
    return await fs.readFile(file);
  } catch (err) {
    if (err.code === 'ENOENT') return null;
    throw err;
  }
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

module.exports = { locate, parseSums, target };
