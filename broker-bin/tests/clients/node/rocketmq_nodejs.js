// npm rocketmq-nodejs, the C++ client for Node, behind the command line every driver here has (see ../README.md).
// It shows no user properties, queue ids, queue offsets or reconsume times, and hands bodies out as strings.
'use strict';

const { spawn } = require('child_process');
const { Producer, PushConsumer } = require('rocketmq-nodejs');
const { main } = require('./shared');

/**
 * Its shutdown() may block for good, of a producer as of a consumer, and so may an ordinary exit afterwards, which
 * waits for the native threads. All lines are written by now: three seconds, then the process ends itself.
 */
function leaveSoon() {
  spawn('sh', ['-c', `sleep 3; kill -9 ${process.pid}`], { stdio: 'ignore', detached: true }).unref();
}

async function send(namesrv, topic, plan, run) {
  const producer = new Producer(`PID_${topic}`, {
    nameServer: namesrv,
    logDir: './logs',
    sendMessageTimeout: plan.timeout_ms,
    ...(plan.open_limits ? { maxMessageSize: 16 << 20 } : {}),
  });
  await producer.start();
  await run(plan, async (item, body, line) => {
    try {
      const r = await producer.send(topic, body, { tags: item.tag, keys: item.keys.join(' ') });
      const stored = r.status === Producer.SEND_RESULT.OK;
      if (r.msgId) {
        Object.assign(line, { status: stored ? 'acked' : r.statusStr, msgId: r.msgId, queueOffset: r.offset });
      } else { // the client's own refusal of an empty body comes as a result, not as an error
        Object.assign(line, { status: 'refused', by: 'client', code: -1, error: r.statusStr });
      }
      return stored;
    } catch (err) {
      const code = /error: ?(-?\d+)/i.exec(err.message);
      Object.assign(line, {
        status: 'refused',
        by: /BrokerException/.test(err.message) ? 'broker' : 'client',
        code: code ? Number(code[1]) : -1,
        error: err.message,
      });
      return false;
    }
  });
  leaveSoon();
  await producer.shutdown();
}

async function consume(namesrv, group, topics, seen, done) {
  const consumer = new PushConsumer(group, { nameServer: namesrv, logDir: './logs', threadCount: 1 });
  for (const topic of topics) consumer.subscribe(topic, '*');
  consumer.on('message', (m, ack) => {
    seen.take({ topic: m.topic, keys: m.keys, tag: m.tags, msgId: m.msgId }, Buffer.from(m.body));
    ack.done(true);
  });
  await consumer.start();
  await done();
  leaveSoon();
  await consumer.shutdown();
}

main(send, consume);
