import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Predicate;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.MQVersion;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.protocol.RemotingSerializable;

/** What applications do with the Java client, one scenario each; they run side by side, for most of them wait. */
final class Scenarios {
    /** Many start at once, and a busy machine is no failure of the broker. */
    private static final int CALL_MS = 15_000;
    private static final boolean IS_5 = MQVersion.CURRENT_VERSION >= MQVersion.Version.V5_0_0.ordinal();

    interface Play {
        void run(Stage stage) throws Exception;
    }

    /** The client has no call for it. */
    static final class NotOffered extends Exception {
        NotOffered(String why) {
            super(why);
        }
    }

    /** Those that wait longest come first. */
    private static final Map<String, Play> ALL = new LinkedHashMap<>();

    static {
        ALL.put("retry", Scenarios::retry);
        ALL.put("dlq", Scenarios::deadLetter);
        ALL.put("dlq-orderly", Scenarios::deadLetterInOrder);
        ALL.put("trace", Scenarios::trace);
        ALL.put("transaction", Scenarios::transaction);
        ALL.put("push-orderly", Scenarios::pushOrderly);
        ALL.put("delay-level", s -> arrivesLate(s, m -> m.setDelayTimeLevel(2), 5000));
        ALL.put("deliver-at", Scenarios::deliverAt);
        ALL.put("drain", Scenarios::drain);
        ALL.put("lite-pull", Scenarios::litePull);
        ALL.put("lite-pull-seek", Scenarios::litePullSeek);
        ALL.put("broadcast", Scenarios::broadcast);
        ALL.put("request-reply", s -> replied(s, (p, m) -> p.request(m, 15_000)));
        ALL.put("request-reply-async", s -> replied(s, (p, m) -> askAsync(s, p, m)));
        ALL.put("push", Scenarios::push);
        ALL.put("filter-tag", Scenarios::filterByTag);
        ALL.put("filter-sql", Scenarios::filterBySql);
        ALL.put("filter-sql-off", Scenarios::filterBySqlRefused);
        ALL.put("query", Scenarios::query);
        ALL.put("pull", Scenarios::pull);
        ALL.put("large", Scenarios::large);
        ALL.put("body", Scenarios::body);
        ALL.put("send-sync", Scenarios::sendSync);
        ALL.put("send-async", Scenarios::sendAsync);
        ALL.put("send-oneway", Scenarios::sendOneway);
        ALL.put("send-batch", Scenarios::sendBatch);
        ALL.put("send-selector", Scenarios::sendSelector);
    }

    /** Plays the named scenarios, `parallel` at a time, and writes one line for each. */
    static void play(String namesrv, String run, String names, int parallel, String file) throws Exception {
        var wanted = List.of(names.split(","));
        var pool = Executors.newFixedThreadPool(parallel);
        try (var out = new PrintStream(Files.newOutputStream(Path.of(file)), true, StandardCharsets.UTF_8)) {
            for (var name : wanted)
                if (!ALL.containsKey(name)) out.println(line(name, "not offered", 0, Map.of("why", "no such scenario")));
            for (var scenario : ALL.entrySet())
                if (wanted.contains(scenario.getKey()))
                    pool.execute(() -> out.println(playOne(namesrv, run, scenario.getKey(), scenario.getValue())));
            pool.shutdown();
            pool.awaitTermination(1, TimeUnit.HOURS);
        }
    }

    private static String playOne(String namesrv, String run, String name, Play play) {
        var stage = new Stage(namesrv, name.replace('-', '_') + (IS_5 ? "_java5_" : "_java4_") + run);
        var began = System.currentTimeMillis();
        var result = "ok";
        try {
            play.run(stage);
        } catch (NotOffered e) {
            result = "not offered";
            stage.note("why", e.getMessage());
        } catch (Throwable e) {
            result = "failed";
            var text = String.valueOf(e);
            stage.note("why", text.substring(0, Math.min(500, text.length())));
        }
        stage.close();
        return line(name, result, System.currentTimeMillis() - began, stage.facts);
    }

    private static String line(String scenario, String result, long ms, Map<String, Object> facts) {
        var line = new LinkedHashMap<String, Object>();
        line.put("scenario", scenario);
        line.put("result", result);
        line.put("ms", ms);
        line.put("facts", facts);
        return RemotingSerializable.toJson(line, false);
    }

    /** Names and clients of one scenario. Everything it starts ends with it. */
    static final class Stage implements AutoCloseable {
        final String namesrv, suffix, topic, group;
        final Map<String, Object> facts = new ConcurrentHashMap<>();
        private final Deque<Runnable> ends = new ArrayDeque<>();

        Stage(String namesrv, String suffix) {
            this.namesrv = namesrv;
            this.suffix = suffix;
            topic = "T_" + suffix;
            group = "GID_" + suffix;
        }

        void note(String what, Object value) {
            facts.put(what, value);
        }

        /** Clients of one process are told apart by their instance names. */
        private String instance() {
            return suffix + "@" + ends.size();
        }

        DefaultMQProducer producer() throws Exception {
            return started(new DefaultMQProducer("PID_" + suffix));
        }

        <P extends DefaultMQProducer> P started(P producer) throws Exception {
            producer.setNamesrvAddr(namesrv);
            producer.setInstanceName(instance());
            producer.setSendMsgTimeout(CALL_MS);
            producer.setMqClientApiTimeout(CALL_MS);
            producer.start();
            ends.push(producer::shutdown);
            return producer;
        }

        /** A topic with one message in it, so that consumers find a route. */
        Stage withTopic() throws Exception {
            must(sent(producer(), message(topic, "first", "first")), "the first message of " + topic);
            return this;
        }

        DefaultMQPushConsumer consumer(boolean traced) {
            var consumer = new DefaultMQPushConsumer(group, null, new AllocateMessageQueueAveragely(), traced, null);
            consumer.setNamesrvAddr(namesrv);
            consumer.setInstanceName(instance());
            consumer.setMqClientApiTimeout(CALL_MS);
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            return consumer;
        }

        void start(DefaultMQPushConsumer consumer) throws Exception {
            consumer.start();
            ends.push(consumer::shutdown);
        }

        /** A consumer that is done with everything at once. */
        void collect(String topic, MessageSelector selector, Predicate<MessageExt> take) throws Exception {
            var consumer = consumer(false);
            consumer.subscribe(topic, selector);
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                var all = messages.stream().allMatch(take);
                return all ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS : ConsumeConcurrentlyStatus.RECONSUME_LATER;
            });
            start(consumer);
        }

        DefaultLitePullConsumer litePull() {
            var consumer = new DefaultLitePullConsumer(group);
            consumer.setNamesrvAddr(namesrv);
            consumer.setInstanceName(instance() + System.nanoTime());
            consumer.setMqClientApiTimeout(CALL_MS);
            consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
            return consumer;
        }

        /** All messages of a topic, queue by queue. */
        List<MessageExt> readAll(String topic) throws Exception {
            var consumer = new DefaultMQPullConsumer("GID_reader_" + suffix);
            consumer.setNamesrvAddr(namesrv);
            consumer.setInstanceName(instance() + "reader");
            consumer.setMqClientApiTimeout(CALL_MS);
            consumer.start();
            try {
                var all = new ArrayList<MessageExt>();
                for (var queue : consumer.fetchSubscribeMessageQueues(topic)) {
                    var offset = consumer.minOffset(queue);
                    for (var end = consumer.maxOffset(queue); offset < end; ) {
                        var pulled = consumer.pull(queue, "*", offset, 32);
                        if (pulled.getPullStatus() == PullStatus.FOUND) all.addAll(pulled.getMsgFoundList());
                        must(pulled.getNextBeginOffset() > offset, "the pull goes on", pulled);
                        offset = pulled.getNextBeginOffset();
                    }
                }
                return all;
            } finally {
                consumer.shutdown();
            }
        }

        @Override
        public void close() {
            while (!ends.isEmpty()) ends.pop().run();
        }
    }

    // ---- words ----------------------------------------------------------------------------------------------------

    private static void must(boolean holds, String what, Object... seen) {
        if (!holds) throw new AssertionError(what + (seen.length == 0 ? "" : ": " + Arrays.deepToString(seen)));
    }

    private static Message message(String topic, String tag, String body) {
        return new Message(topic, tag, body.getBytes(StandardCharsets.UTF_8));
    }

    private static String text(Message message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private static boolean sent(DefaultMQProducer producer, Message message) throws Exception {
        return producer.send(message).getSendStatus() == SendStatus.SEND_OK;
    }

    private static MessageSelector everything() {
        return MessageSelector.byTag("*");
    }

    /** Waits until there are so many, and a moment longer for those that should not come. */
    private static void await(Collection<?> found, int count, int seconds) throws Exception {
        var end = System.currentTimeMillis() + seconds * 1000L;
        while (found.size() < count && System.currentTimeMillis() < end) Thread.sleep(50);
        Thread.sleep(1500);
        must(found.size() == count, count + " were to come, " + found.size() + " came", found);
    }

    private static boolean rises(List<Integer> numbers) {
        for (int i = 1; i < numbers.size(); i++) if (numbers.get(i) <= numbers.get(i - 1)) return false;
        return true;
    }

    private static String refusal(Exception e) {
        return String.valueOf(e.getMessage()).lines().findFirst().orElse("");
    }

    // ---- sending --------------------------------------------------------------------------------------------------

    private static void sendSync(Stage s) throws Exception {
        var producer = s.producer();
        var told = new TreeMap<String, String>();
        for (int i = 0; i < 8; i++) {
            var m = message(s.topic, "TagA", "body " + i);
            m.setKeys("key" + i);
            m.putUserProperty("number", String.valueOf(i));
            var r = producer.send(m);
            must(r.getSendStatus() == SendStatus.SEND_OK && r.getOffsetMsgId().length() == 32, "the result", r);
            must(r.getMsgId().equals(m.getProperty("UNIQ_KEY")), "the message's own id", r);
            told.put("body " + i, r.getMessageQueue().getQueueId() + ":" + r.getQueueOffset());
        }
        var back = s.readAll(s.topic);
        must(back.size() == 8, "as many come back", back.size());
        for (var m : back) {
            must((m.getQueueId() + ":" + m.getQueueOffset()).equals(told.get(text(m))), "the place told", m, told);
            var number = text(m).substring(5);
            must("TagA".equals(m.getTags()) && ("key" + number).equals(m.getKeys()), "tag and key", m);
            must(number.equals(m.getUserProperty("number")), "the property", m);
        }
    }

    private static void sendAsync(Stage s) throws Exception {
        var producer = s.producer();
        var ids = new ConcurrentLinkedQueue<String>();
        for (int i = 0; i < 20; i++)
            producer.send(message(s.topic, "TagA", "body " + i), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    ids.add(result.getMsgId());
                }

                @Override
                public void onException(Throwable e) {
                    s.note("refused", e.toString());
                }
            });
        await(ids, 20, 15);
        var back = new LinkedHashSet<String>();
        for (var m : s.readAll(s.topic)) must(back.add(m.getMsgId()), "once", m);
        must(back.size() == 20 && back.containsAll(ids), "all come back", back, ids);
    }

    private static void sendOneway(Stage s) throws Exception {
        s.withTopic();
        var producer = s.producer();
        for (int i = 0; i < 10; i++) producer.sendOneway(message(s.topic, "TagA", "body " + i));
        for (int i = 0; i < 50 && s.readAll(s.topic).size() < 11; i++) Thread.sleep(200);
        must(s.readAll(s.topic).size() == 11, "all arrive");
    }

    private static void sendBatch(Stage s) throws Exception {
        s.withTopic();
        var batch = new ArrayList<Message>();
        for (int i = 0; i < 10; i++) {
            batch.add(message(s.topic, "Tag" + i % 2, "batch " + i));
            batch.get(i).setKeys("batch-key" + i);
        }
        var result = s.producer().send(batch);
        must(result.getSendStatus() == SendStatus.SEND_OK && result.getMsgId().split(",").length == 10, "ids", result);
        must(result.getOffsetMsgId().split(",").length == 10, "offset ids", result);
        var back = new ArrayList<MessageExt>();
        for (var m : s.readAll(s.topic)) if (text(m).startsWith("batch")) back.add(m);
        must(back.size() == 10, "as many come back", back);
        for (int i = 0; i < 10; i++) {
            var m = back.get(i);
            must(text(m).equals("batch " + i) && m.getQueueOffset() == result.getQueueOffset() + i, "in order", i, m);
            must(("Tag" + i % 2).equals(m.getTags()) && ("batch-key" + i).equals(m.getKeys()), "tag and key", m);
        }
    }

    private static void sendSelector(Stage s) throws Exception {
        var producer = s.producer();
        for (int i = 0; i < 30; i++)
            producer.send(message(s.topic, "T", i % 3 + " " + i), (queues, m, key) -> queues.get((int) key), i % 3);
        var byKey = new HashMap<String, List<Integer>>();
        var queues = new HashMap<String, Set<Integer>>();
        for (var m : s.readAll(s.topic)) {
            var words = text(m).split(" ");
            byKey.computeIfAbsent(words[0], k -> new ArrayList<>()).add(Integer.valueOf(words[1]));
            queues.computeIfAbsent(words[0], k -> new LinkedHashSet<>()).add(m.getQueueId());
        }
        must(byKey.size() == 3 && queues.values().stream().allMatch(q -> q.size() == 1), "a queue for each", queues);
        must(byKey.values().stream().allMatch(k -> k.size() == 10 && rises(k)), "in the order sent", byKey);
    }

    private static void large(Stage s) throws Exception {
        s.withTopic();
        var producer = s.producer();
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.setMaxMessageSize(16 << 20);
        producer.setSendMsgTimeout(20_000);
        var random = new byte[(4 << 20) - 1024];
        new Random(11).nextBytes(random);
        must(sent(producer, new Message(s.topic, random)), "1 KiB below 4 MiB");
        must(sent(producer, new Message(s.topic, new byte[4 << 20])), "4 MiB");
        try {
            producer.send(new Message(s.topic, new byte[(4 << 20) + 1]));
            must(false, "a byte more is refused");
        } catch (Exception e) {
            s.note("a byte more", refusal(e));
            must(refusal(e).contains("CODE: 13"), "refused with 13", refusal(e));
        }
        must(s.readAll(s.topic).stream().anyMatch(m -> Arrays.equals(m.getBody(), random)), "it comes back");
    }

    private static void body(Stage s) throws Exception {
        var producer = s.producer();
        var big = "compressible".repeat(14_000);
        must(sent(producer, message(s.topic, "T", big)) && sent(producer, message(s.topic, "T", "1")), "both are stored");
        try {
            producer.send(new Message(s.topic, new byte[0]));
            must(false, "nothing is refused");
        } catch (Exception e) {
            s.note("empty", refusal(e));
        }
        var back = s.readAll(s.topic);
        must(back.size() == 2, "two come back", back.size());
        // 4.9 hands the flag over as it was stored; 5.x takes the bit away with the compression, and leaves its kind.
        must(back.stream().anyMatch(m -> text(m).equals(big) && m.getSysFlag() != 0), "the compressed one");
    }

    // ---- later ----------------------------------------------------------------------------------------------------

    private static void deliverAt(Stage s) throws Exception {
        if (!IS_5) throw new NotOffered("4.9 has no setDeliverTimeMs");
        var set = Message.class.getMethod("setDeliverTimeMs", long.class);
        arrivesLate(s, m -> set.invoke(m, System.currentTimeMillis() + 4000), 4000);
    }

    interface Mark {
        void on(Message message) throws Exception;
    }

    private static void arrivesLate(Stage s, Mark mark, long delayMs) throws Exception {
        s.withTopic();
        var took = new ConcurrentLinkedQueue<Long>();
        var due = new ConcurrentLinkedQueue<Long>();
        s.collect(s.topic, MessageSelector.byTag("late"), m -> {
            var time = m.getProperty("TIMER_DELIVER_MS");
            due.add(m.getStoreTimestamp() - (time == null ? m.getBornTimestamp() + delayMs : Long.parseLong(time)));
            return took.add(m.getStoreTimestamp() - m.getBornTimestamp());
        });
        Thread.sleep(2000);
        var late = message(s.topic, "late", "late");
        mark.on(late);
        must(sent(s.producer(), late), "stored");
        await(took, 1, 40);
        s.note("ms", took.peek());
        must(due.peek() >= 0 && due.peek() < 3000, "at its time, or soon after", due);
    }

    private static void transaction(Stage s) throws Exception {
        s.withTopic();
        var seen = new ConcurrentLinkedQueue<String>();
        var asked = new ConcurrentLinkedQueue<String>();
        s.collect(s.topic, MessageSelector.byTag("tx"), m -> seen.add(text(m)));
        var producer = new TransactionMQProducer("PID_tx_" + s.suffix);
        producer.setTransactionListener(new TransactionListener() {
            @Override
            public LocalTransactionState executeLocalTransaction(Message m, Object argument) {
                return switch (text(m)) {
                    case "commit" -> LocalTransactionState.COMMIT_MESSAGE;
                    case "rollback" -> LocalTransactionState.ROLLBACK_MESSAGE;
                    default -> LocalTransactionState.UNKNOW;
                };
            }

            @Override
            public LocalTransactionState checkLocalTransaction(MessageExt m) {
                asked.add(text(m));
                var commits = text(m).equals("commit when asked");
                return commits ? LocalTransactionState.COMMIT_MESSAGE : LocalTransactionState.ROLLBACK_MESSAGE;
            }
        });
        s.started(producer);
        for (var body : List.of("commit", "rollback", "commit when asked", "roll back when asked")) {
            var result = producer.sendMessageInTransaction(message(s.topic, "tx", body), null);
            must(result.getSendStatus() == SendStatus.SEND_OK, body, result);
        }
        await(asked, 2, 100);
        await(seen, 2, 20);
        must(Set.copyOf(asked).equals(Set.of("commit when asked", "roll back when asked")), "asked about", asked);
        must(Set.copyOf(seen).equals(Set.of("commit", "commit when asked")), "those committed are read", seen);
    }

    // ---- asking ---------------------------------------------------------------------------------------------------

    interface Ask {
        Message of(DefaultMQProducer producer, Message question) throws Exception;
    }

    private static void replied(Stage s, Ask ask) throws Exception {
        s.withTopic();
        var replier = s.producer();
        s.collect(s.topic, MessageSelector.byTag("ask"), m -> {
            try {
                var answer = ("answer to " + text(m)).getBytes(StandardCharsets.UTF_8);
                s.note("reply", replier.send(MessageUtil.createReplyMessage(m, answer)).getSendStatus().name());
            } catch (Exception e) {
                s.note("reply refused", refusal(e));
            }
            return true;
        });
        Thread.sleep(2000);
        var answer = ask.of(s.producer(), message(s.topic, "ask", "question"));
        must(answer != null && text(answer).equals("answer to question"), "the answer", answer);
    }

    private static Message askAsync(Stage s, DefaultMQProducer producer, Message question) throws Exception {
        var answer = new CompletableFuture<Message>();
        producer.request(question, new RequestCallback() {
            @Override
            public void onSuccess(Message message) {
                // Both lines call back with nothing when the send is acknowledged.
                if (message != null) answer.complete(message);
            }

            @Override
            public void onException(Throwable e) {
                answer.completeExceptionally(e);
            }
        }, 15_000);
        return answer.get(20, TimeUnit.SECONDS);
    }

    // ---- consuming ------------------------------------------------------------------------------------------------

    private static void push(Stage s) throws Exception {
        var producer = s.producer();
        var seen = new ConcurrentLinkedQueue<String>();
        for (int i = 0; i < 20; i++) must(sent(producer, message(s.topic, "T", "before " + i)), "stored");
        s.collect(s.topic, everything(), m -> seen.add(text(m)));
        await(seen, 20, 30);
        // These wake pulls that are held.
        for (int i = 0; i < 10; i++) must(sent(producer, message(s.topic, "T", "after " + i)), "stored");
        await(seen, 30, 30);
        must(Set.copyOf(seen).size() == 30, "each once", seen);
    }

    private static void pushOrderly(Stage s) throws Exception {
        var producer = s.producer();
        var all = new ConcurrentLinkedQueue<Integer>();
        var byQueue = new ConcurrentHashMap<Integer, List<Integer>>();
        var stumbled = new AtomicBoolean();
        for (int i = 0; i < 40; i++)
            producer.send(message(s.topic, "T", String.valueOf(i)), (queues, m, n) -> queues.get((int) n), i % 4);
        var consumer = s.consumer(false);
        consumer.subscribe(s.topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (var m : messages) {
                var number = Integer.valueOf(text(m));
                if (number == 9 && stumbled.compareAndSet(false, true))
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                byQueue.computeIfAbsent(m.getQueueId(), q -> new ArrayList<>()).add(number);
                all.add(number);
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        s.start(consumer);
        await(all, 40, 60);
        must(stumbled.get() && byQueue.values().stream().allMatch(Scenarios::rises), "in order", byQueue);
    }

    /** A consumer that fails, and says what became of each attempt. */
    private static void failing(Stage s, int attemptsMax, Collection<String> attempts,
                                Function<MessageExt, Integer> level, Predicate<MessageExt> isDone) throws Exception {
        must(sent(s.producer(), message(s.topic, "T", "again")), "stored");
        var consumer = s.consumer(false);
        if (attemptsMax >= 0) consumer.setMaxReconsumeTimes(attemptsMax);
        consumer.subscribe(s.topic, "*");
        consumer.registerMessageListener(new MessageListenerConcurrently() {
            @Override
            public ConsumeConcurrentlyStatus consumeMessage(List<MessageExt> all, ConsumeConcurrentlyContext context) {
                var m = all.get(0);
                attempts.add(m.getReconsumeTimes() + " of " + m.getTopic());
                context.setDelayLevelWhenNextConsume(level.apply(m));
                return isDone.test(m) ? ConsumeConcurrentlyStatus.CONSUME_SUCCESS
                    : ConsumeConcurrentlyStatus.RECONSUME_LATER;
            }
        });
        s.start(consumer);
    }

    private static void retry(Stage s) throws Exception {
        var attempts = new ConcurrentLinkedQueue<String>();
        var times = new ConcurrentLinkedQueue<Long>();
        failing(s, -1, attempts, m -> {
            times.add(m.getStoreTimestamp());
            // The first delay is the broker's to choose, the second one is level 2.
            return m.getReconsumeTimes() == 0 ? 0 : 2;
        }, m -> m.getReconsumeTimes() == 2);
        await(attempts, 3, 70);
        var topic = " of " + s.topic;
        must(List.copyOf(attempts).equals(List.of("0" + topic, "1" + topic, "2" + topic)), "the attempts", attempts);
        var at = List.copyOf(times);
        s.note("ms", List.of(at.get(1) - at.get(0), at.get(2) - at.get(1)));
        must(at.get(1) - at.get(0) >= 10_000 && at.get(2) - at.get(1) >= 5_000, "the delays", at);
    }

    private static void deadLetter(Stage s) throws Exception {
        var attempts = new ConcurrentLinkedQueue<String>();
        failing(s, 1, attempts, m -> 1, m -> false);
        await(attempts, 2, 60);
        lieDead(s);
    }

    private static void deadLetterInOrder(Stage s) throws Exception {
        must(sent(s.producer(), message(s.topic, "T", "again")), "stored");
        var attempts = new AtomicInteger();
        var consumer = s.consumer(false);
        consumer.setMaxReconsumeTimes(1);
        consumer.subscribe(s.topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            attempts.incrementAndGet();
            return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
        });
        s.start(consumer);
        for (int i = 0; i < 400 && attempts.get() < 2; i++) Thread.sleep(100);
        lieDead(s);
        s.note("attempts", attempts.get());
    }

    /** One message lies in the group's dead-letter topic, and can be consumed there. */
    private static void lieDead(Stage s) throws Exception {
        var dead = new ConcurrentLinkedQueue<String>();
        var reader = new Stage(s.namesrv, "dead_" + s.suffix);
        try (reader) {
            reader.collect("%DLQ%" + s.group, everything(), m -> dead.add(text(m) + " of " + m.getProperty("RETRY_TOPIC")));
            await(dead, 1, 60);
        }
        must(dead.peek().equals("again of " + s.topic), "the dead letter", dead);
    }

    private static void pull(Stage s) throws Exception {
        var producer = s.producer();
        var bodies = new LinkedHashSet<String>();
        for (int i = 0; i < 40; i++) must(sent(producer, message(s.topic, "T", "body " + i)), "stored");
        for (var m : s.readAll(s.topic)) must(bodies.add(text(m)), "once", m);
        must(bodies.size() == 40, "all of them", bodies.size());
    }

    /** A second member goes on where the first one has committed. */
    private static void litePull(Stage s) throws Exception {
        var producer = s.producer();
        var seen = new LinkedHashSet<String>();
        int expected = 0;
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 20; i++) must(sent(producer, message(s.topic, "T", round + " " + i)), "stored");
            expected += 20;
            var consumer = s.litePull();
            consumer.subscribe(s.topic, "*");
            consumer.start();
            for (int i = 0; i < 60 && seen.size() < expected; i++)
                for (var m : consumer.poll(500)) must(seen.add(text(m)), "once", m);
            consumer.commitSync();
            Thread.sleep(500);
            consumer.shutdown();
            must(seen.size() == expected, "all of round " + round, seen.size());
        }
    }

    private static void litePullSeek(Stage s) throws Exception {
        var producer = s.producer();
        for (int i = 0; i < 12; i++) must(sent(producer, message(s.topic, "T", "old " + i)), "stored");
        Thread.sleep(1000);
        var between = System.currentTimeMillis();
        Thread.sleep(1000);
        for (int i = 0; i < 12; i++) must(sent(producer, message(s.topic, "T", "new " + i)), "stored");
        var consumer = s.litePull();
        consumer.start();
        try {
            var queues = consumer.fetchMessageQueues(s.topic);
            consumer.assign(queues);
            must(poll(consumer, 24).size() == 24, "all of it first");
            for (var queue : queues) consumer.seek(queue, consumer.offsetForTimestamp(queue, between));
            var again = poll(consumer, 12);
            must(again.size() == 12 && again.stream().allMatch(t -> t.startsWith("new")), "the new ones", again);
            var future = System.currentTimeMillis() + 60_000;
            for (var queue : queues) s.note("future of " + queue.getQueueId(), consumer.offsetForTimestamp(queue, future));
        } finally {
            consumer.shutdown();
        }
    }

    private static List<String> poll(DefaultLitePullConsumer consumer, int count) {
        var bodies = new ArrayList<String>();
        for (int i = 0; i < 60 && bodies.size() < count; i++) for (var m : consumer.poll(300)) bodies.add(text(m));
        return bodies;
    }

    private static void broadcast(Stage s) throws Exception {
        s.withTopic();
        var seen = List.of(new ConcurrentLinkedQueue<String>(), new ConcurrentLinkedQueue<String>());
        for (var mine : seen) {
            var consumer = s.consumer(false);
            broadcasting(consumer);
            consumer.subscribe(s.topic, "all");
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                messages.forEach(m -> mine.add(text(m)));
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            s.start(consumer);
        }
        Thread.sleep(3000);
        var producer = s.producer();
        for (int i = 0; i < 10; i++) must(sent(producer, message(s.topic, "all", "body " + i)), "stored");
        for (var mine : seen) await(mine, 10, 30);
    }

    /** The enum has a package of its own in each line. */
    private static void broadcasting(DefaultMQPushConsumer consumer) throws ReflectiveOperationException {
        for (var method : DefaultMQPushConsumer.class.getMethods())
            if (method.getName().equals("setMessageModel"))
                for (var model : method.getParameterTypes()[0].getEnumConstants())
                    if (((Enum<?>) model).name().equals("BROADCASTING")) method.invoke(consumer, model);
    }

    private static void filterByTag(Stage s) throws Exception {
        var producer = s.producer();
        var seen = new ConcurrentLinkedQueue<String>();
        for (int i = 0; i < 30; i++) must(sent(producer, message(s.topic, "Tag" + i % 3, "body " + i)), "stored");
        s.collect(s.topic, MessageSelector.byTag("Tag0 || Tag2"), m -> seen.add(m.getTags()));
        await(seen, 20, 30);
        must(!seen.contains("Tag1"), "no others", seen);
    }

    private static void sendColours(Stage s) throws Exception {
        var producer = s.producer();
        for (int i = 0; i < 20; i++) {
            var m = message(s.topic, "T", "body " + i);
            m.putUserProperty("number", String.valueOf(i));
            m.putUserProperty("colour", i % 2 == 0 ? "red" : "blue");
            must(sent(producer, m), "stored");
        }
    }

    private static void filterBySql(Stage s) throws Exception {
        sendColours(s);
        var seen = new ConcurrentLinkedQueue<String>();
        s.collect(s.topic, MessageSelector.bySql("number > 9 AND colour = 'red'"), m -> seen.add(text(m)));
        await(seen, 5, 30);
        must(Set.copyOf(seen).equals(Set.of("body 10", "body 12", "body 14", "body 16", "body 18")), "these", seen);
    }

    /** Where such filters are switched off, a consumer does not start. */
    private static void filterBySqlRefused(Stage s) throws Exception {
        sendColours(s);
        try {
            s.collect(s.topic, MessageSelector.bySql("number > 9"), m -> true);
        } catch (Exception e) {
            s.note("refused", refusal(e));
            return;
        }
        must(false, "it does not start");
    }

    private static void trace(Stage s) throws Exception {
        var producer = s.started(new DefaultMQProducer("PID_" + s.suffix, null, true, null));
        var id = producer.send(message(s.topic, "T", "traced")).getMsgId();
        var seen = new ConcurrentLinkedQueue<String>();
        var consumer = s.consumer(true);
        consumer.subscribe(s.topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(m -> seen.add(text(m)));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        s.start(consumer);
        await(seen, 1, 30);
        Set<String> kinds = new LinkedHashSet<>();
        for (int i = 0; i < 60 && kinds.size() < 3; i++) {
            Thread.sleep(500);
            for (var m : s.readAll("RMQ_SYS_TRACE_TOPIC"))
                for (var kind : List.of("Pub", "SubBefore", "SubAfter"))
                    if (text(m).contains(id) && text(m).contains(kind)) kinds.add(kind);
        }
        must(kinds.size() == 3, "before, during and after", kinds);
    }

    private static void query(Stage s) throws Exception {
        var producer = s.producer();
        var wanted = message(s.topic, "T", "wanted");
        var keys = List.of("one-" + s.suffix, "two-" + s.suffix);
        wanted.setKeys(keys);
        var sent = producer.send(wanted);
        must(sent(producer, message(s.topic, "T", "other")), "stored");
        Thread.sleep(1500);
        for (var key : keys) {
            var found = producer.queryMessage(s.topic, key, 10, 0, System.currentTimeMillis() + 1000).getMessageList();
            must(found.size() == 1 && text(found.get(0)).equals("wanted"), "by its key " + key, found);
        }
        must(text(producer.viewMessage(s.topic, sent.getOffsetMsgId())).equals("wanted"), "by its place");
        must(text(producer.viewMessage(s.topic, sent.getMsgId())).equals("wanted"), "by its own id");
        try {
            producer.queryMessage(s.topic, "nobody's", 10, 0, System.currentTimeMillis());
            must(false, "an unknown key finds nothing");
        } catch (Exception e) {
            s.note("unknown key", refusal(e));
        }
    }

    /** Two thousand, and not one lost, doubled or out of order. */
    private static void drain(Stage s) throws Exception {
        var producer = s.producer();
        var acked = new LinkedHashSet<String>();
        for (int i = 0; i < 2000; i++) {
            var result = producer.send(message(s.topic, "T", String.valueOf(i)));
            if (result.getSendStatus() == SendStatus.SEND_OK) acked.add(result.getMsgId());
        }
        must(acked.size() == 2000, "all are stored", acked.size());
        var seen = new ConcurrentLinkedQueue<String>();
        var byQueue = new ConcurrentHashMap<Integer, List<Integer>>();
        var consumer = s.consumer(false);
        consumer.subscribe(s.topic, "*");
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (var m : messages) {
                seen.add(m.getMsgId());
                byQueue.computeIfAbsent(m.getQueueId(), q -> new ArrayList<>()).add(Integer.valueOf(text(m)));
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        s.start(consumer);
        for (int i = 0; i < 300 && seen.size() < acked.size(); i++) Thread.sleep(200);
        Thread.sleep(1500);
        must(Set.copyOf(seen).equals(acked), "none is lost", seen.size());
        must(seen.size() == acked.size(), "none comes twice", seen.size());
        must(byQueue.values().stream().allMatch(Scenarios::rises), "in the order sent");
    }

    private Scenarios() {}
}
