import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;

/** The Java client, 4.9 and 5.x alike, behind the command line every driver here has (see README.md). */
public class Driver {
    /** What PLAN.json holds. Public fields: the client's own JSON reader fills them. */
    public static class Plan {
        public int retry_seconds, pace_ms, timeout_ms, own_retries;
        public boolean open_limits;
        public List<Item> messages;
    }
    public static class Item {
        public int index;
        public String tag, text, file;
        public List<String> keys;
        public Map<String, String> properties;
    }

    public static void main(String[] a) throws Exception {
        switch (a.length == 0 ? "" : a[0]) {
            case "send" -> send(a[1], a[2], Path.of(a[3]), a[4]);
            case "consume" ->
                consume(a[1], a[2], a[3], Integer.parseInt(a[4]), Integer.parseInt(a[5]), a[6], a.length > 7);
            case "chain-send" -> Chain.send(a[1], a[2], Path.of(a[3]), a[4]);
            case "chain-consume" -> Chain.consume(a[1], a[2], a[3], a[4].equals("orderly"), a[5], a[6]);
            case "scenarios" -> Scenarios.play(a[1], a[3], a[4], Integer.parseInt(a[5]), a[6]);
            default -> {
                System.err.println("usage: send NAMESRV TOPIC PLAN ACKED"
                    + " | consume NAMESRV GROUP TOPICS EXPECT SECONDS OUT [orderly]"
                    + " | chain-send NAMESRV GROUP PLAN ACKED"
                    + " | chain-consume NAMESRV GROUP TOPIC orderly|concurrent NAME SEEN"
                    + " | scenarios NAMESRV BROKER RUN NAMES PARALLEL OUT");
                System.exit(2);
            }
        }
        System.exit(0);
    }

    static void send(String namesrv, String topic, Path planFile, String acked) throws Exception {
        var plan = RemotingSerializable.fromJson(Files.readString(planFile), Plan.class);
        var producer = new DefaultMQProducer("PID_" + topic, hook());
        producer.setNamesrvAddr(namesrv);
        producer.setRetryTimesWhenSendFailed(plan.own_retries);
        producer.setSendMsgTimeout(plan.timeout_ms);
        if (plan.open_limits) {
            producer.setMaxMessageSize(16 << 20);
            producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        }
        producer.start();
        try (var out = lines(acked)) {
            for (var item : plan.messages) {
                var body = item.file == null
                    ? item.text.getBytes(StandardCharsets.UTF_8)
                    : Files.readAllBytes(planFile.resolveSibling(item.file));
                var line = new LinkedHashMap<String, Object>();
                line.put("index", item.index);
                line.put("started", System.currentTimeMillis());
                var end = System.currentTimeMillis() + plan.retry_seconds * 1000L;
                var first = message(topic, item, body);
                for (int attempts = 1; ; attempts++) {
                    line.put("attempts", attempts);
                    // The same object has the same id: that is how a client tries again.
                    var m = plan.own_retries > 0 ? first : message(topic, item, body);
                    if (attempt(producer, m, line) || System.currentTimeMillis() >= end) break;
                    Thread.sleep(200);
                }
                line.put("ended", System.currentTimeMillis());
                out.println(RemotingSerializable.toJson(line, false));
                Thread.sleep(plan.pace_ms);
            }
        }
        producer.shutdown();
    }

    /** Signs as the account that the environment names, by the client's own hook. It stands elsewhere before 5.0. */
    static RPCHook hook() throws ReflectiveOperationException {
        var key = System.getenv("ANCHORLOG_CLIENTS_ACCESS_KEY");
        if (key == null) return null;
        var credentials = Class.forName("org.apache.rocketmq.acl.common.SessionCredentials")
            .getConstructor(String.class, String.class).newInstance(key, System.getenv("ANCHORLOG_CLIENTS_SECRET_KEY"));
        return (RPCHook) Class.forName("org.apache.rocketmq.acl.common.AclClientRPCHook")
            .getConstructor(credentials.getClass()).newInstance(credentials);
    }

    static Message message(String topic, Item item, byte[] body) {
        var m = new Message(topic, item.tag, body);
        m.setKeys(item.keys);
        item.properties.forEach(m::putUserProperty);
        return m;
    }

    static boolean attempt(DefaultMQProducer producer, Message m, Map<String, Object> line) {
        try {
            var r = producer.send(m);
            line.put("status", r.getSendStatus() == SendStatus.SEND_OK ? "acked" : r.getSendStatus().name());
            line.put("msgId", r.getMsgId());
            line.put("offsetMsgId", r.getOffsetMsgId());
            line.put("broker", r.getMessageQueue().getBrokerName());
            line.put("queueId", r.getMessageQueue().getQueueId());
            line.put("queueOffset", r.getQueueOffset());
            return r.getSendStatus() == SendStatus.SEND_OK;
        } catch (MQBrokerException e) {
            refused(line, "broker", e.getResponseCode(), e);
        } catch (MQClientException e) {
            refused(line, "client", e.getResponseCode(), e);
        } catch (Exception e) {
            refused(line, "client", -1, e);
        }
        return false;
    }

    static void refused(Map<String, Object> line, String by, int code, Exception e) {
        line.put("status", "refused");
        line.put("by", by);
        line.put("code", code);
        line.put("error", String.valueOf(e.getMessage()).lines().findFirst().orElse(""));
        // Where the client has tried, what the broker said is behind what it says itself.
        if (e.getCause() != null) line.put("cause", String.valueOf(e.getCause().getMessage()));
    }

    static void consume(String namesrv, String group, String topics, int expect, int seconds, String file,
                        boolean orderly) throws Exception {
        Set<String> seen = new HashSet<>();
        long[] last = {System.currentTimeMillis()};
        var out = lines(file);
        var consumer = new DefaultMQPushConsumer(group, hook(), new AllocateMessageQueueAveragely());
        consumer.setNamesrvAddr(namesrv);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // One thread: what arrives per queue is then seen in the order it was handed out, with no lock asked for.
        consumer.setConsumeThreadMin(1);
        consumer.setConsumeThreadMax(1);
        for (var topic : topics.split(",")) consumer.subscribe(topic, "*");
        java.util.function.Consumer<List<MessageExt>> take = ms -> {
            synchronized (seen) {
                for (var m : ms) {
                    out.println(RemotingSerializable.toJson(record(m), false));
                    seen.add(m.getTopic() + " " + m.getKeys());
                    last[0] = System.currentTimeMillis();
                }
            }
        };
        if (orderly) {
            consumer.registerMessageListener((MessageListenerOrderly) (ms, x) -> {
                take.accept(ms);
                return ConsumeOrderlyStatus.SUCCESS;
            });
        } else {
            consumer.registerMessageListener((MessageListenerConcurrently) (ms, x) -> {
                take.accept(ms);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
        }
        consumer.start();
        for (long end = last[0] + seconds * 1000L; System.currentTimeMillis() < end; Thread.sleep(50))
            synchronized (seen) {
                if (seen.size() >= expect && System.currentTimeMillis() - last[0] > 2000) break;
            }
        consumer.shutdown();
        out.close();
    }

    static Map<String, Object> record(MessageExt m) {
        var line = new LinkedHashMap<String, Object>();
        line.put("topic", m.getTopic());
        line.put("keys", m.getKeys());
        line.put("tag", m.getTags());
        try {
            line.put("sha256", HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(m.getBody())));
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
        line.put("length", m.getBody().length);
        line.put("properties", m.getProperties());
        line.put("broker", m.getBrokerName());
        line.put("queueId", m.getQueueId());
        line.put("queueOffset", m.getQueueOffset());
        line.put("reconsumeTimes", m.getReconsumeTimes());
        line.put("msgId", m.getMsgId());
        line.put("sysFlag", m.getSysFlag());
        line.put("at", System.currentTimeMillis());
        return line;
    }

    static PrintStream lines(String file) throws Exception {
        return new PrintStream(Files.newOutputStream(Path.of(file)), true, StandardCharsets.UTF_8);
    }
}
