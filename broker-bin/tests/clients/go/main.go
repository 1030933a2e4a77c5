// The Go v2 client, behind the command line every driver here has (see README.md).
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

type plan struct {
	RetrySeconds int64 `json:"retry_seconds"`
	PaceMs       int64 `json:"pace_ms"`
	TimeoutMs    int64 `json:"timeout_ms"`
	OpenLimits   bool  `json:"open_limits"`
	OwnRetries   int   `json:"own_retries"`
	Messages     []item
}

type item struct {
	Index      int
	Tag        string
	Text       string
	File       string
	Keys       []string
	Properties map[string]string
}

type line map[string]interface{}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	rlog.SetLogLevel("error")
	a := os.Args[1:]
	switch {
	case len(a) == 5 && a[0] == "send":
		send(a[1], a[2], a[3], a[4])
	case len(a) >= 7 && a[0] == "consume":
		expect, err := strconv.Atoi(a[4])
		must(err)
		seconds, err := strconv.Atoi(a[5])
		must(err)
		consume(a[1], a[2], a[3], expect, seconds, a[6], len(a) > 7)
	case len(a) == 5 && a[0] == "chain-send":
		chainSend(a[1], a[2], a[3], a[4])
	case len(a) == 7 && a[0] == "chain-consume":
		chainConsume(a[1], a[2], a[3], a[4] == "orderly", a[5], a[6])
	case len(a) == 6 && a[0] == "tunnel":
		tunnel(a[1], a[2], a[3], a[4], a[5])
	case len(a) == 7 && a[0] == "scenarios":
		parallel, err := strconv.Atoi(a[5])
		must(err)
		playScenarios(a[1], a[2], a[3], a[4], parallel, a[6])
	default:
		fmt.Fprintln(os.Stderr, "usage: send NAMESRV TOPIC PLAN ACKED |",
			"consume NAMESRV GROUP TOPICS EXPECT SECONDS OUT [orderly] |",
			"chain-send NAMESRV GROUP PLAN ACKED |",
			"chain-consume NAMESRV GROUP TOPIC orderly|concurrent NAME SEEN |",
			"tunnel LISTEN TARGET CA CERT KEY |",
			"scenarios NAMESRV BROKER RUN NAMES PARALLEL OUT")
		os.Exit(2)
	}
}

func write(out *os.File, l line) {
	raw, err := json.Marshal(l)
	must(err)
	_, err = out.Write(append(raw, '\n'))
	must(err)
}

func send(namesrv, topic, planFile, acked string) {
	raw, err := os.ReadFile(planFile)
	must(err)
	var p plan
	must(json.Unmarshal(raw, &p))
	options := []producer.Option{
		producer.WithNameServer(strings.Split(namesrv, ";")),
		producer.WithGroupName("PID_" + topic),
		producer.WithRetry(p.OwnRetries),
		producer.WithSendMsgTimeout(time.Duration(p.TimeoutMs) * time.Millisecond),
	}
	if account := credentials(); account != nil {
		options = append(options, producer.WithCredentials(*account))
	}
	if p.OpenLimits {
		options = append(options, producer.WithCompressMsgBodyOverHowmuch(1<<30))
	}
	client, err := rocketmq.NewProducer(options...)
	must(err)
	must(client.Start())
	out, err := os.Create(acked)
	must(err)
	for _, m := range p.Messages {
		body := []byte(m.Text)
		if m.File != "" {
			body, err = os.ReadFile(filepath.Join(filepath.Dir(planFile), m.File))
			must(err)
		}
		l := line{"index": m.Index, "started": time.Now().UnixMilli()}
		end := time.Now().Add(time.Duration(p.RetrySeconds) * time.Second)
		first := message(topic, m, body)
		for attempts := 1; ; attempts++ {
			l["attempts"] = attempts
			again := first
			if p.OwnRetries == 0 {
				// Only the same object has the same id.
				again = message(topic, m, body)
			}
			if attempt(client, again, l) || !time.Now().Before(end) {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		l["ended"] = time.Now().UnixMilli()
		write(out, l)
		time.Sleep(time.Duration(p.PaceMs) * time.Millisecond)
	}
	must(out.Close())
	must(client.Shutdown())
}

// credentials is the account that the environment names, if it names one.
func credentials() *primitive.Credentials {
	key, named := os.LookupEnv("ANCHORLOG_CLIENTS_ACCESS_KEY")
	if !named {
		return nil
	}
	return &primitive.Credentials{AccessKey: key, SecretKey: os.Getenv("ANCHORLOG_CLIENTS_SECRET_KEY")}
}

func message(topic string, m item, body []byte) *primitive.Message {
	message := primitive.NewMessage(topic, body).WithTag(m.Tag).WithKeys(m.Keys)
	for name, value := range m.Properties {
		message.WithProperty(name, value)
	}
	return message
}

// attempt sends once and writes down what came of it; true when the broker stored the message.
func attempt(client rocketmq.Producer, message *primitive.Message, l line) bool {
	r, err := client.SendSync(context.Background(), message)
	if err != nil {
		l["status"], l["by"], l["code"], l["error"] = "refused", "client", -1, err.Error()
		// The broker's refusals carry their code in the text only.
		var code int
		if _, e := fmt.Sscanf(err.Error(), "CODE: %d", &code); e == nil {
			l["by"], l["code"] = "broker", code
		}
		return false
	}
	l["status"] = "acked"
	if r.Status != primitive.SendOK {
		l["status"] = fmt.Sprint("status ", r.Status)
	}
	l["msgId"], l["offsetMsgId"] = r.MsgID, r.OffsetMsgID
	if r.MessageQueue != nil {
		l["queueId"], l["queueOffset"] = r.MessageQueue.QueueId, r.QueueOffset
	}
	return r.Status == primitive.SendOK
}

func consume(namesrv, group, topics string, expect, seconds int, file string, orderly bool) {
	out, err := os.Create(file)
	must(err)
	var mu sync.Mutex
	seen, last := map[string]bool{}, time.Now()
	options := []consumer.Option{
		consumer.WithNameServer(strings.Split(namesrv, ";")),
		consumer.WithGroupName(group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumeGoroutineNums(1),
		consumer.WithConsumerOrder(orderly),
	}
	if account := credentials(); account != nil {
		options = append(options, consumer.WithCredentials(*account))
	}
	client, err := rocketmq.NewPushConsumer(options...)
	must(err)
	take := func(_ context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range ms {
			write(out, record(m))
			seen[m.Topic+" "+m.GetKeys()] = true
			last = time.Now()
		}
		return consumer.ConsumeSuccess, nil
	}
	for _, topic := range strings.Split(topics, ",") {
		must(client.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}, take))
	}
	must(client.Start())
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
		mu.Lock()
		done := len(seen) >= expect && time.Since(last) > 2*time.Second
		mu.Unlock()
		if done {
			break
		}
	}
	must(client.Shutdown())
	must(out.Close())
}

func record(m *primitive.MessageExt) line {
	digest := sha256.Sum256(m.Body)
	return line{
		"topic":          m.Topic,
		"keys":           m.GetKeys(),
		"tag":            m.GetTags(),
		"sha256":         hex.EncodeToString(digest[:]),
		"length":         len(m.Body),
		"properties":     m.GetProperties(),
		"queueId":        m.Queue.QueueId,
		"queueOffset":    m.QueueOffset,
		"reconsumeTimes": m.ReconsumeTimes,
		"msgId":          m.MsgId,
		"sysFlag":        m.SysFlag,
		"at":             time.Now().UnixMilli(),
	}
}
