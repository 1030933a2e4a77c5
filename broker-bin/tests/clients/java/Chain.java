import java.io.FileOutputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;

/**
 * Producers and consumers of the chain (see README.md). A message's body says what becomes of it: its number, a word,
 * and how often. They live until they are killed, and what they wrote down by then counts.
 */
final class Chain {
    /** What PLAN.json holds. Public fields: the client's own JSON reader fills them. */
    public static class Plan {
        public int retry_seconds, pace_ms, timeout_ms;
        public List<Item> messages;
    }

    public static class Item {
        public int index, level, delay_ms, queue;
        public String kind, topic, key, body;
    }

    /** Lines that several processes append to one file, each whole. */
    static final class Lines {
        private final OutputStream out;

        Lines(String file) throws Exception {
            out = new FileOutputStream(file, true);
        }

        synchronized void add(Map<String, Object> line) {
            try {
                out.write((RemotingSerializable.toJson(line, false) + "\n").getBytes(StandardCharsets.UTF_8));
            } catch (java.io.IOException e) {
                throw new java.io.UncheckedIOException(e);
            }
        }
    }

    private static String[] words(Message m) {
        return new String(m.getBody(), StandardCharsets.UTF_8).split(" ");
    }

    private static int count(String[] words) {
        return words.length > 2 ? Integer.parseInt(words[2]) : 0;
    }

    // ---- producing ------------------------------------------------------------------------------------------------

    static void send(String namesrv, String group, Path planFile, String acked) throws Exception {
        var plan = RemotingSerializable.fromJson(Files.readString(planFile), Plan.class);
        var plain = start(new DefaultMQProducer(group), namesrv, plan);
        var asked = new ConcurrentHashMap<String, Integer>();
        var transactional = new TransactionMQProducer(group + "_tx");
        transactional.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message m, Object argument) {
                return decided(words(m)[1], false);
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt m) {
                // Who asks often enough is told.
                var times = asked.merge(words(m)[0], 1, Integer::sum);
                return decided(words(m)[1], times > count(words(m)));
            }
        });
        start(transactional, namesrv, plan);
        var lines = new Lines(acked);
        for (var item : plan.messages) {
            var m = message(item);
            var line = new LinkedHashMap<String, Object>();
            line.put("index", item.index);
            line.put("started", System.currentTimeMillis());
            var end = System.currentTimeMillis() + plan.retry_seconds * 1000L;
            for (int attempts = 1; ; attempts++) {
                line.put("attempts", attempts);
                if (attempt(plain, transactional, item, m, line) || System.currentTimeMillis() >= end) break;
                Thread.sleep(200);
            }
            line.put("ended", System.currentTimeMillis());
            lines.add(line);
            Thread.sleep(plan.pace_ms);
        }
        // Somebody may still be asked about what this one began.
        Thread.sleep(Long.MAX_VALUE);
    }

    private static <P extends DefaultMQProducer> P start(P producer, String namesrv, Plan plan) throws Exception {
        producer.setNamesrvAddr(namesrv);
        producer.setInstanceName(producer.getProducerGroup() + "@" + ProcessHandle.current().pid());
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(plan.timeout_ms);
        producer.start();
        return producer;
    }

    private static LocalTransactionState decided(String word, boolean isAsked) {
        return switch (word) {
            case "commit" -> LocalTransactionState.COMMIT_MESSAGE;
            case "rollback" -> LocalTransactionState.ROLLBACK_MESSAGE;
            case "ask-commit" -> isAsked ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.UNKNOW;
            default -> isAsked ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.UNKNOW;
        };
    }

    private static Message message(Item item) {
        var m = new Message(item.topic, "T", item.body.getBytes(StandardCharsets.UTF_8));
        m.setKeys(item.key);
        if (item.level > 0) m.setDelayTimeLevel(item.level);
        // Not every line has a call for it; the property is enough.
        if (item.delay_ms > 0) MessageAccessor.putProperty(m, "TIMER_DELAY_MS", String.valueOf(item.delay_ms));
        return m;
    }

    private static boolean attempt(DefaultMQProducer plain, TransactionMQProducer transactional, Item item, Message m,
                                   Map<String, Object> line) {
        try {
            SendResult r = switch (item.kind) {
                case "transaction" -> transactional.sendMessageInTransaction(m, null);
                case "ordered" -> plain.send(m, (queues, message, number) -> queues.get((int) number), item.queue);
                default -> plain.send(m);
            };
            line.put("status", r.getSendStatus() == SendStatus.SEND_OK ? "acked" : r.getSendStatus().name());
            line.put("queueId", r.getMessageQueue().getQueueId());
            line.put("queueOffset", r.getQueueOffset());
            return r.getSendStatus() == SendStatus.SEND_OK;
        } catch (Exception e) {
            line.put("status", "refused");
            line.put("error", String.valueOf(e.getMessage()).lines().findFirst().orElse(""));
            return false;
        }
    }

    // ---- consuming ------------------------------------------------------------------------------------------------

    static void consume(String namesrv, String group, String topic, boolean orderly, String name, String file)
            throws Exception {
        var lines = new Lines(file);
        var seen = new ConcurrentHashMap<String, Integer>();
        var consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        consumer.setConsumeMessageBatchMaxSize(1);
        consumer.subscribe(topic, "*");
        if (orderly) {
            consumer.setSuspendCurrentQueueTimeMillis(200);
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                var m = messages.get(0);
                lines.add(line(name, "begin", m));
                var words = words(m);
                var again = words[1].equals("again") && seen.merge(words[0], 1, Integer::sum) <= count(words);
                linger(words);
                lines.add(line(name, again ? "again" : "done", m));
                return again ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.setMaxReconsumeTimes(2);
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                var m = messages.get(0);
                lines.add(line(name, "begin", m));
                var words = words(m);
                linger(words);
                context.setDelayLevelWhenNextConsume(1);
                var fails = words[1].equals("dead") || words[1].equals("fail") && m.getReconsumeTimes() < count(words);
                lines.add(line(name, fails ? "fail" : "done", m));
                return fails ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        Thread.sleep(Long.MAX_VALUE);
    }

    private static void linger(String[] words) {
        try {
            if (words[1].equals("slow")) Thread.sleep(count(words));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static Map<String, Object> line(String name, String what, MessageExt m) {
        var line = new LinkedHashMap<String, Object>();
        line.put("by", name);
        line.put("what", what);
        line.put("index", Integer.parseInt(words(m)[0]));
        line.put("queueId", m.getQueueId());
        line.put("queueOffset", m.getQueueOffset());
        line.put("attempts", m.getReconsumeTimes());
        line.put("at", System.currentTimeMillis());
        return line;
    }

    private Chain() {}
}
