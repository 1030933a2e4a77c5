import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * An operator's shell beside a live producer and a live consumer, all in one process: starting a virtual machine for each command would
 * take longer than the commands.
 *
 * Operator NAMESRV TOPIC GROUP: sends ten messages with keys and trace, consumes them, and prints their ids. Then each line of standard input
 * is a command of mqadmin, its words separated by tabs; what it prints, its errors included, ends with a line "#<".
 */
public class Operator {
    private static final AtomicInteger CONSUMED = new AtomicInteger();

    /** A command that ran once keeps what it has shut down: each begins anew. */
    private static class Commands extends MQAdminStartup {
        static void forget() {
            SUB_COMMANDS.clear();
        }
    }

    public static void main(String[] args) throws Exception {
        System.setErr(System.out);
        String namesrv = args[0], topic = args[1], group = args[2];
        DefaultMQProducer producer = new DefaultMQProducer("PID_" + topic, true, null);
        producer.setNamesrvAddr(namesrv);
        producer.start();
        for (int i = 0; i < 10; i++) {
            Message message = new Message(topic, "TagA", "key-" + i, ("body " + i).getBytes(StandardCharsets.UTF_8));
            SendResult sent = producer.send(message);
            System.out.println(String.join("\t", "#sent", sent.getMsgId(), sent.getOffsetMsgId(),
                String.valueOf(sent.getMessageQueue().getQueueId()), String.valueOf(sent.getQueueOffset())));
        }
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(namesrv);
        consumer.setInstanceName("live");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            CONSUMED.addAndGet(messages.size());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        for (int i = 0; i < 300 && CONSUMED.get() < 10; i++) {
            Thread.sleep(100);
        }
        consumer.getDefaultMQPushConsumerImpl().persistConsumerOffset();
        String clientId = consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId();
        System.out.println("#ready\t" + CONSUMED.get() + "\t" + clientId);
        System.out.flush();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            List<String> words = List.of(line.split("\t"));
            if (words.get(0).equals("consumed")) {
                System.out.println(CONSUMED.get());
            } else {
                Commands.forget();
                try {
                    MQAdminStartup.main0(words.toArray(new String[0]), null);
                } catch (Throwable error) {
                    error.printStackTrace(System.out);
                }
            }
            System.out.println("\n#<");
            System.out.flush();
        }
        // Some commands leave threads behind.
        System.exit(0);
    }
}
