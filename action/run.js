// Finds the program for this machine and hands a phase of the action over to it. It has no dependencies, so what is
// committed here is what runs.
'use strict';

const { locate } = require('./locate.js');
const { spawn } = require('node:child_process');

async function run(phase) {
  const binary = await locate({ env: process.env, platform: process.platform, arch: process.arch, root: __dirname, log: console.log, again: phase === 'post' });
  const child = spawn(binary, [phase], { stdio: 'inherit' });
  // The runner signals this process when a job is cancelled; the program knows what to do about it.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (err) => fail(`start ${binary}: ${err.message}`));
  child.on('exit', (code) => { process.exitCode = code ?? 1; });
}

// fail ends the step with one line. A message is never a second command: line breaks and % are escaped.
function fail(message) {
  const text = String(message).replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
  console.log(`::error title=attic-action::${text}`);
  process.exitCode = 1;
}

module.exports = { hand: (phase) => run(phase).catch((err) => fail(err.message)) };
