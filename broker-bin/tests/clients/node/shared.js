// What both Node drivers share: the plan, the lines they write, the loop of attempts.
'use strict';

const fs = require('fs');
const path = require('path');
const crypto = require('crypto');

const USAGE =
  'usage: send NAMESRV TOPIC PLAN ACKED | consume NAMESRV GROUP TOPICS EXPECT SECONDS OUT [orderly]';
const sleep = ms => new Promise(done => setTimeout(done, ms));

function lines(file) {
  const fd = fs.openSync(file, 'w');
  return line => fs.writeSync(fd, JSON.stringify(line) + '\n');
}

/** Sends a plan. `attempt(item, body, line)` fills the line in and says whether the broker stored the message. */
async function sendPlan(planFile, plan, acked, attempt) {
  const write = lines(acked);
  for (const item of plan.messages) {
    const body = item.file ? fs.readFileSync(path.join(path.dirname(planFile), item.file)) : Buffer.from(item.text);
    const line = { index: item.index, started: Date.now() };
    const end = Date.now() + plan.retry_seconds * 1000;
    for (line.attempts = 1; ; line.attempts++) {
      if (await attempt(item, body, line) || Date.now() >= end) break;
      await sleep(200);
    }
    line.ended = Date.now();
    write(line);
    await sleep(plan.pace_ms);
  }
}

/** Waits until `expect` different messages came and nothing more follows, or the time is up. */
async function awaitQuiet(seen, expect, seconds) {
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(50)) {
    if (seen.keys.size >= expect && Date.now() - seen.last > 2000) return;
  }
}

/** Collects what a consumer got: writes the line, remembers the keys. */
function collector(file) {
  const write = lines(file);
  const seen = { keys: new Set(), last: Date.now() };
  seen.take = (line, body) => {
    line.sha256 = crypto.createHash('sha256').update(body).digest('hex');
    line.length = body.length;
    line.at = Date.now();
    write(line);
    seen.keys.add(line.topic + ' ' + line.keys);
    seen.last = line.at;
  };
  return seen;
}

/** Runs one of the two commands; a rejected promise ends the process with 1. */
function main(send, consume) {
  const [command, ...a] = process.argv.slice(2);
  let work;
  if (command === 'send' && a.length === 4) {
    work = send(a[0], a[1], JSON.parse(fs.readFileSync(a[2], 'utf8')), (plan, attempt) =>
      sendPlan(a[2], plan, a[3], attempt));
  } else if (command === 'consume' && a.length >= 6) {
    const seen = collector(a[5]);
    work = consume(a[0], a[1], a[2].split(','), seen, () => awaitQuiet(seen, Number(a[3]), Number(a[4])));
  } else {
    console.error(USAGE);
    process.exit(2);
  }
  work.then(() => process.exit(0), err => {
    console.error(err);
    process.exit(1);
  });
}

module.exports = { main };
