// npm ali-ons, the client in plain JavaScript, behind the command line every driver here has (see ../README.md).
'use strict';

const { Producer, Consumer, Message } = require('ali-ons');
const { main } = require('./shared');

// It signs every request, so keys are needed; without httpclient it hangs silently, though nothing is asked over HTTP.
const base = nameSrv => ({ nameSrv, accessKeyId: 'ak', accessKeySecret: 'sk', httpclient: {} });

async function send(namesrv, topic, plan, run) {
  const producer = new Producer({
    ...base(namesrv),
    producerGroup: `PID_${topic}`,
    sendMsgTimeout: plan.timeout_ms,
    // A retry inside the client would compress the already compressed body once more.
    retryTimesWhenSendFailed: 0,
    ...(plan.open_limits ? { compressMsgBodyOverHowmuch: Infinity, maxMessageSize: 16 << 20 } : {}),
  });
  producer.on('error', err => console.error('error event:', err.message));
  await producer.ready();
  await run(plan, async (item, body, line) => {
    const m = new Message(topic, item.tag, body);
    m.keys = item.keys;
    Object.assign(m.properties, item.properties);
    try {
      const r = await producer.send(m);
      const stored = r.sendStatus === 'SEND_OK';
      Object.assign(line, {
        status: stored ? 'acked' : r.sendStatus,
        msgId: r.msgId,
        offsetMsgId: r.msgId,
        queueId: Number(r.messageQueue.queueId),
        queueOffset: Number(r.queueOffset),
      });
      return stored;
    } catch (err) {
      const code = typeof err.code === 'number' ? err.code : -1;
      Object.assign(line, { status: 'refused', by: code < 0 ? 'client' : 'broker', code, error: err.message });
      return false;
    }
  });
}

async function consume(namesrv, group, topics, seen, done) {
  const consumer = new Consumer({
    ...base(namesrv),
    consumerGroup: group,
    consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
  });
  // One of these for every queue without a stored offset on a server that answers 22: the next rebalance asks again.
  consumer.on('error', err => console.error('error event:', err.message));
  for (const topic of topics) {
    consumer.subscribe(topic, '*', async m => seen.take({
      topic: m.topic,
      keys: m.keys,
      tag: m.tags,
      properties: m.properties,
      queueId: m.queueId,
      queueOffset: m.queueOffset,
      reconsumeTimes: m.reconsumeTimes,
      msgId: m.msgId,
      sysFlag: m.sysFlag,
    }, m.body || Buffer.alloc(0)));
  }
  await consumer.ready();
  await done();
  await consumer.close();
}

main(send, consume);
