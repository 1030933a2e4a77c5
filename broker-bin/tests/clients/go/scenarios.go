package main

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// What applications do with this client, one scenario each; they run side by side, for most of them wait.

type scenario struct {
	name string
	play func(*stage)
}

// The client has no call for it.
type notOffered string

// Those that wait longest come first.
var scenarios = []scenario{
	{"request-reply", requestReply},
	{"retry", retry},
	{"dlq", deadLetter},
	{"dlq-orderly", deadLetterInOrder},
	{"trace", trace},
	{"transaction", transaction},
	{"push-orderly", pushOrderly},
	{"delay-level", func(s *stage) { s.arrivesLate(func(m *primitive.Message) { m.WithDelayTimeLevel(2) }, 5000) }},
	{"deliver-at", deliverAt},
	{"drain", drain},
	{"send-selector", sendSelector},
	{"lite-pull", litePull},
	{"lite-pull-seek", func(*stage) { panic(notOffered("the pull consumer cannot seek by time")) }},
	{"request-reply-async", func(*stage) { panic(notOffered("not tried")) }},
	{"query", func(*stage) { panic(notOffered("it has no queries")) }},
	{"broadcast", broadcast},
	{"push", push},
	{"filter-tag", filterByTag},
	{"filter-sql", filterBySQL},
	{"filter-sql-off", filterBySQLRefused},
	{"pull", pull},
	{"large", large},
	{"body", bodies},
	{"send-sync", sendSync},
	{"send-async", sendAsync},
	{"send-oneway", sendOneway},
	{"send-batch", sendBatch},
	{"admin", administer},
}

// playScenarios plays the named ones, so many at a time, and writes one line for each.
func playScenarios(namesrv, broker, run, names string, parallel int, file string) {
	out, err := os.Create(file)
	must(err)
	wanted := map[string]bool{}
	for _, name := range strings.Split(names, ",") {
		wanted[name] = true
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	room := make(chan bool, parallel)
	for _, s := range scenarios {
		if !wanted[s.name] {
			continue
		}
		delete(wanted, s.name)
		room <- true
		wait.Add(1)
		go func(s scenario) {
			defer wait.Done()
			l := playOne(&stage{namesrv: namesrv, broker: broker, suffix: run}, s)
			mu.Lock()
			write(out, l)
			mu.Unlock()
			<-room
		}(s)
	}
	wait.Wait()
	for name := range wanted {
		write(out, line{"scenario": name, "result": "not offered", "ms": 0, "facts": line{"why": "no such scenario"}})
	}
	must(out.Close())
}

func playOne(s *stage, played scenario) (l line) {
	s.suffix, s.facts = strings.ReplaceAll(played.name, "-", "_")+"_go_"+s.suffix, line{}
	s.topic, s.group = "T_"+s.suffix, "GID_"+s.suffix
	began := time.Now()
	l = line{"scenario": played.name, "result": "ok"}
	func() {
		defer func() {
			switch e := recover().(type) {
			case nil:
			case notOffered:
				l["result"] = "not offered"
				s.note("why", string(e))
			default:
				l["result"] = "failed"
				text := fmt.Sprint(e)
				s.note("why", text[:min(len(text), 500)])
			}
		}()
		played.play(s)
	}()
	for i := len(s.ends) - 1; i >= 0; i-- {
		_ = s.ends[i]()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	facts := line{}
	for what, value := range s.facts {
		facts[what] = value
	}
	l["ms"], l["facts"] = time.Since(began).Milliseconds(), facts
	return l
}

// stage holds names and clients of one scenario; everything it starts ends with it.
type stage struct {
	namesrv, broker, suffix, topic, group string

	mu    sync.Mutex
	facts line
	ends  []func() error
}

func (s *stage) note(what string, value interface{}) {
	s.mu.Lock()
	s.facts[what] = value
	s.mu.Unlock()
}

func need(holds bool, what string, seen ...interface{}) {
	if !holds {
		panic(fmt.Errorf("%s: %v", what, seen))
	}
}

func done(err error) {
	if err != nil {
		panic(err)
	}
}

// words collects what callbacks see.
type words struct {
	mu    sync.Mutex
	found []string
}

func (w *words) add(text string) {
	w.mu.Lock()
	w.found = append(w.found, text)
	w.mu.Unlock()
}

func (w *words) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string{}, w.found...)
}

// await waits until there are so many, and a moment longer for those that should not come.
func (w *words) await(count, seconds int) []string {
	for end := time.Now().Add(time.Duration(seconds) * time.Second); len(w.all()) < count && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(1500 * time.Millisecond)
	all := w.all()
	need(len(all) == count, fmt.Sprintf("%d were to come, %d came", count, len(all)), all)
	return all
}

func sameSet(found []string, wanted ...string) bool {
	found = append([]string{}, found...)
	sort.Strings(found)
	sort.Strings(wanted)
	return strings.Join(found, ",") == strings.Join(wanted, ",")
}

func (s *stage) instance() string { return fmt.Sprint(s.suffix, "@", len(s.ends)) }

func (s *stage) producer(more ...producer.Option) rocketmq.Producer {
	p, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNameServer([]string{s.namesrv}),
		producer.WithGroupName("PID_" + s.suffix),
		producer.WithInstanceName(s.instance()),
		// Many start at once, and a busy machine is no failure of the broker.
		producer.WithSendMsgTimeout(15 * time.Second),
	}, more...)...)
	done(err)
	done(p.Start())
	s.ends = append(s.ends, p.Shutdown)
	return p
}

func text(topic, tag, body string) *primitive.Message {
	return primitive.NewMessage(topic, []byte(body)).WithTag(tag)
}

func sent(p rocketmq.Producer, ms ...*primitive.Message) *primitive.SendResult {
	r, err := p.SendSync(context.Background(), ms...)
	done(err)
	need(r.Status == primitive.SendOK, "stored", r)
	return r
}

// withTopic makes the topic: a consumer of an unknown one does not start.
func (s *stage) withTopic() { sent(s.producer(), text(s.topic, "first", "first")) }

type taking func(context.Context, *primitive.MessageExt) consumer.ConsumeResult

func (s *stage) newConsumer(topic string, selector consumer.MessageSelector, take taking, more ...consumer.Option) rocketmq.PushConsumer {
	c, err := rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNameServer([]string{s.namesrv}),
		consumer.WithGroupName(s.group),
		consumer.WithInstance(s.instance()),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
	}, more...)...)
	done(err)
	done(c.Subscribe(topic, selector, func(x context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range ms {
			if r := take(x, m); r != consumer.ConsumeSuccess {
				return r, nil
			}
		}
		return consumer.ConsumeSuccess, nil
	}))
	return c
}

func (s *stage) consume(selector consumer.MessageSelector, take taking, more ...consumer.Option) {
	c := s.newConsumer(s.topic, selector, take, more...)
	done(c.Start())
	s.ends = append(s.ends, c.Shutdown)
}

func tagged(expression string) consumer.MessageSelector {
	return consumer.MessageSelector{Type: consumer.TAG, Expression: expression}
}

// collect starts a consumer that is done with everything at once.
func (s *stage) collect(expression string, shown func(*primitive.MessageExt) string, more ...consumer.Option) *words {
	found := &words{}
	s.consume(tagged(expression), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		found.add(shown(m))
		return consumer.ConsumeSuccess
	}, more...)
	return found
}

func bodyOf(m *primitive.MessageExt) string { return string(m.Body) }

// rise says whether the numbers behind each word come in their order.
func rise(found []string) bool {
	last := map[string]int{}
	for _, line := range found {
		parts := strings.Fields(line)
		number, err := strconv.Atoi(parts[1])
		if before, known := last[parts[0]]; err != nil || known && number <= before {
			return false
		}
		last[parts[0]] = number
	}
	return true
}

// ---- sending --------------------------------------------------------------------------------------------------------

func sendSync(s *stage) {
	p, told := s.producer(), []string{}
	for i := 0; i < 8; i++ {
		m := text(s.topic, "TagA", fmt.Sprint("body ", i)).WithKeys([]string{fmt.Sprint("key", i)})
		m.WithProperty("number", strconv.Itoa(i))
		r := sent(p, m)
		need(r.MsgID == m.GetProperty("UNIQ_KEY") && len(r.OffsetMsgID) == 32, "ids", r)
		told = append(told, fmt.Sprintf("body %d TagA key%d %d %d:%d", i, i, i, r.MessageQueue.QueueId, r.QueueOffset))
	}
	found := s.collect("*", func(m *primitive.MessageExt) string {
		return fmt.Sprintf("%s %s %s %s %d:%d", m.Body, m.GetTags(), m.GetKeys(), m.GetProperty("number"), m.Queue.QueueId, m.QueueOffset)
	})
	need(sameSet(found.await(8, 30), told...), "as they were sent", told, found.all())
}

func sendAsync(s *stage) {
	s.withTopic()
	p, ids := s.producer(), &words{}
	for i := 0; i < 20; i++ {
		done(p.SendAsync(context.Background(), func(_ context.Context, r *primitive.SendResult, err error) {
			if err != nil {
				s.note("refused", err.Error())
				return
			}
			ids.add(r.MsgID)
		}, text(s.topic, "TagA", fmt.Sprint("body ", i))))
	}
	told := ids.await(20, 15)
	found := s.collect("TagA", func(m *primitive.MessageExt) string { return m.MsgId })
	need(sameSet(found.await(20, 30), told...), "those that were told", told, found.all())
}

func sendOneway(s *stage) {
	s.withTopic()
	p := s.producer()
	for i := 0; i < 10; i++ {
		done(p.SendOneWay(context.Background(), text(s.topic, "TagA", fmt.Sprint("body ", i))))
	}
	s.collect("TagA", bodyOf).await(10, 30)
}

func sendBatch(s *stage) {
	s.withTopic()
	p, ms, wanted := s.producer(), []*primitive.Message{}, []string{}
	for i := 0; i < 10; i++ {
		ms = append(ms, text(s.topic, fmt.Sprint("Tag", i%2), fmt.Sprint("batch ", i)).WithKeys([]string{fmt.Sprint("key", i)}))
		wanted = append(wanted, fmt.Sprintf("batch %d Tag%d key%d", i, i%2, i))
	}
	r := sent(p, ms...)
	need(len(strings.Split(r.OffsetMsgID, ",")) == 10, "offset ids", r)
	found := s.collect("Tag0 || Tag1", func(m *primitive.MessageExt) string {
		return fmt.Sprintf("%s %s %s", m.Body, m.GetTags(), m.GetKeys())
	}, consumer.WithConsumerOrder(true))
	need(strings.Join(found.await(10, 40), ",") == strings.Join(wanted, ","), "all in order", found.all())
}

func sendSelector(s *stage) {
	p := s.producer(producer.WithQueueSelector(producer.NewHashQueueSelector()))
	for i := 0; i < 30; i++ {
		sent(p, text(s.topic, "T", strconv.Itoa(i)).WithShardingKey(fmt.Sprint("key", i%3)))
	}
	found := s.collect("*", func(m *primitive.MessageExt) string {
		return fmt.Sprint(m.GetShardingKey(), " ", bodyOf(m), " ", m.Queue.QueueId)
	}, consumer.WithConsumerOrder(true)).await(30, 60)
	queues := map[string]string{}
	for _, line := range found {
		parts := strings.Fields(line)
		need(queues[parts[0]] == "" || queues[parts[0]] == parts[2], "a queue for each", found)
		queues[parts[0]] = parts[2]
	}
	need(len(queues) == 3 && rise(found), "in the order sent", found)
}

func large(s *stage) {
	p := s.producer(producer.WithCompressMsgBodyOverHowmuch(1<<30), producer.WithSendMsgTimeout(20*time.Second))
	random := make([]byte, 4<<20-1024)
	_, err := rand.New(rand.NewSource(11)).Read(random)
	done(err)
	sent(p, primitive.NewMessage(s.topic, random))
	_, err = p.SendSync(context.Background(), primitive.NewMessage(s.topic, make([]byte, 4<<20+1)))
	s.note("a byte too many", fmt.Sprint(err))
	need(err != nil && strings.Contains(err.Error(), "CODE: 13"), "refused with 13", err)
	found := s.collect("*", func(m *primitive.MessageExt) string { return fmt.Sprint(bodyOf(m) == string(random)) })
	need(found.await(1, 30)[0] == "true", "as it was")
}

func bodies(s *stage) {
	p, big := s.producer(), strings.Repeat("compressible", 14_000)
	sent(p, text(s.topic, "T", big))
	sent(p, text(s.topic, "T", "1"))
	_, err := p.SendSync(context.Background(), primitive.NewMessage(s.topic, nil))
	s.note("empty", fmt.Sprint(err))
	need(err != nil, "nothing is refused")
	found := s.collect("*", func(m *primitive.MessageExt) string { return fmt.Sprint(bodyOf(m) == big, " ", m.SysFlag&1) })
	need(sameSet(found.await(2, 30), "true 1", "false 0"), "both, one of them compressed", found.all())
}

// ---- later ----------------------------------------------------------------------------------------------------------

// The client has no call for a time; the property is enough.
func deliverAt(s *stage) {
	s.arrivesLate(func(m *primitive.Message) {
		m.WithProperty("TIMER_DELIVER_MS", fmt.Sprint(time.Now().UnixMilli()+4000))
	}, 4000)
}

func (s *stage) arrivesLate(mark func(*primitive.Message), delayMs int64) {
	s.withTopic()
	found := s.collect("late", func(m *primitive.MessageExt) string {
		due := m.BornTimestamp + delayMs
		if at, err := strconv.ParseInt(m.GetProperty("TIMER_DELIVER_MS"), 10, 64); err == nil {
			due = at
		}
		return fmt.Sprint(m.StoreTimestamp - due)
	})
	time.Sleep(2 * time.Second)
	late := text(s.topic, "late", "late")
	mark(late)
	sent(s.producer(), late)
	behind, err := strconv.ParseInt(found.await(1, 40)[0], 10, 64)
	done(err)
	s.note("late by ms", behind)
	need(behind >= 0 && behind < 3000, "at its time, or soon after", behind)
}

type decider struct{ asked *words }

func (d decider) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	switch string(m.Body) {
	case "commit":
		return primitive.CommitMessageState
	case "rollback":
		return primitive.RollbackMessageState
	}
	return primitive.UnknowState
}

func (d decider) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	d.asked.add(bodyOf(m))
	if bodyOf(m) == "commit when asked" {
		return primitive.CommitMessageState
	}
	return primitive.RollbackMessageState
}

func transaction(s *stage) {
	s.withTopic()
	found, asked := s.collect("tx", bodyOf), &words{}
	p, err := rocketmq.NewTransactionProducer(decider{asked}, producer.WithNameServer([]string{s.namesrv}),
		producer.WithGroupName("PID_tx_"+s.suffix), producer.WithInstanceName(s.instance()))
	done(err)
	done(p.Start())
	s.ends = append(s.ends, p.Shutdown)
	for _, body := range []string{"commit", "rollback", "commit when asked", "roll back when asked"} {
		r, err := p.SendMessageInTransaction(context.Background(), text(s.topic, "tx", body))
		done(err)
		need(r.Status == primitive.SendOK, body, r)
	}
	need(sameSet(asked.await(2, 100), "commit when asked", "roll back when asked"), "asked about", asked.all())
	need(sameSet(found.await(2, 20), "commit", "commit when asked"), "those committed are read", found.all())
}

func requestReply(s *stage) {
	s.withTopic()
	replier := s.producer()
	s.consume(tagged("ask"), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		reply, err := consumer.CreateReplyMessage(m, nil)
		if err == nil {
			// It forgets the body that it is given.
			reply.Body = append([]byte("answer to "), m.Body...)
			_, err = replier.SendSync(context.Background(), reply)
		}
		s.note("replied", fmt.Sprint(err))
		return consumer.ConsumeSuccess
	})
	asker := s.producer()
	sent(asker, text(s.topic, "first", "first"))
	// A reply finds the producer by its heartbeat; the first one that tells of it comes within 30 s.
	time.Sleep(32 * time.Second)
	answer, err := asker.Request(context.Background(), 15*time.Second, text(s.topic, "ask", "question"))
	done(err)
	need(string(answer.Body) == "answer to question", "the answer", string(answer.Body))
	// What the replier asked is answered, too, before it ends.
	time.Sleep(3 * time.Second)
}

// ---- consuming ------------------------------------------------------------------------------------------------------

func push(s *stage) {
	p := s.producer()
	wanted := []string{}
	for i := 0; i < 20; i++ {
		sent(p, text(s.topic, "T", fmt.Sprint("before ", i)))
		wanted = append(wanted, fmt.Sprint("before ", i))
	}
	found := s.collect("*", bodyOf)
	found.await(20, 30)
	// These wake pulls that are held.
	for i := 0; i < 10; i++ {
		sent(p, text(s.topic, "T", fmt.Sprint("after ", i)))
		wanted = append(wanted, fmt.Sprint("after ", i))
	}
	need(sameSet(found.await(30, 30), wanted...), "each once", found.all())
}

func (s *stage) queues() []*primitive.MessageQueue {
	a, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{s.namesrv})))
	done(err)
	queues, err := a.FetchPublishMessageQueues(context.Background(), s.topic)
	done(err)
	done(a.Close())
	return queues
}

func pushOrderly(s *stage) {
	s.withTopic()
	p, queues := s.producer(producer.WithQueueSelector(producer.NewManualQueueSelector())), s.queues()
	for i := 0; i < 40; i++ {
		m := text(s.topic, "T", strconv.Itoa(i))
		m.Queue = queues[i%len(queues)]
		sent(p, m)
	}
	found, stumbled := &words{}, int32(0)
	s.consume(tagged("T"), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		if bodyOf(m) == "9" && atomic.CompareAndSwapInt32(&stumbled, 0, 1) {
			return consumer.SuspendCurrentQueueAMoment
		}
		found.add(fmt.Sprint(m.Queue.QueueId, " ", bodyOf(m)))
		return consumer.ConsumeSuccess
	}, consumer.WithConsumerOrder(true))
	need(rise(found.await(40, 60)) && atomic.LoadInt32(&stumbled) == 1, "in order", found.all())
}

// failing starts a consumer that fails with what comes until it is done with it.
func (s *stage) failing(level func(*primitive.MessageExt) int, isDone func(*primitive.MessageExt) bool, more ...consumer.Option) *words {
	sent(s.producer(), text(s.topic, "T", "again"))
	attempts := &words{}
	s.consume(tagged("*"), func(x context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		attempts.add(fmt.Sprint(m.ReconsumeTimes, " ", m.Topic == s.topic, " ", m.StoreTimestamp))
		if c, ok := primitive.GetConcurrentlyCtx(x); ok && level(m) > 0 {
			c.DelayLevelWhenNextConsume = level(m)
		}
		if isDone(m) {
			return consumer.ConsumeSuccess
		}
		return consumer.ConsumeRetryLater
	}, more...)
	return attempts
}

func retry(s *stage) {
	attempts := s.failing(func(m *primitive.MessageExt) int { return 2 * int(m.ReconsumeTimes) },
		func(m *primitive.MessageExt) bool { return m.ReconsumeTimes == 2 }).await(3, 80)
	var stored [3]int64
	for i, line := range attempts {
		var times int
		var same bool
		_, err := fmt.Sscan(line, &times, &same, &stored[i])
		need(err == nil && times == i && same, "the attempts", attempts)
	}
	s.note("ms", []int64{stored[1] - stored[0], stored[2] - stored[1]})
	need(stored[1]-stored[0] >= 10_000 && stored[2]-stored[1] >= 5_000, "the delays", attempts)
}

func deadLetter(s *stage) {
	s.failing(func(*primitive.MessageExt) int { return 1 }, func(*primitive.MessageExt) bool { return false },
		consumer.WithMaxReconsumeTimes(1)).await(2, 60)
	s.liesDead()
}

func deadLetterInOrder(s *stage) {
	sent(s.producer(), text(s.topic, "T", "again"))
	attempts := &words{}
	s.consume(tagged("*"), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		attempts.add(fmt.Sprint(m.ReconsumeTimes))
		return consumer.SuspendCurrentQueueAMoment
	}, consumer.WithConsumerOrder(true), consumer.WithMaxReconsumeTimes(1))
	s.liesDead()
	s.note("attempts", len(attempts.all()))
}

// liesDead consumes one message from the group's dead-letter topic, which has no route before there is one.
func (s *stage) liesDead() {
	reader := &stage{namesrv: s.namesrv, suffix: "dead_" + s.suffix, group: "GID_dead_" + s.suffix, facts: line{}}
	found := &words{}
	for tries := 0; ; tries++ {
		c := reader.newConsumer("%DLQ%"+s.group, tagged("*"), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
			found.add(bodyOf(m) + " " + m.GetProperty("RETRY_TOPIC"))
			return consumer.ConsumeSuccess
		}, consumer.WithInstance(fmt.Sprint(reader.suffix, tries)))
		err := c.Start()
		if err == nil {
			s.ends = append(s.ends, c.Shutdown)
			break
		}
		need(tries < 30, "a dead-letter topic", err)
		time.Sleep(2 * time.Second)
	}
	need(found.await(1, 60)[0] == "again "+s.topic, "the dead letter", found.all())
}

func (s *stage) newPull() rocketmq.PullConsumer {
	c, err := rocketmq.NewPullConsumer(consumer.WithNameServer([]string{s.namesrv}), consumer.WithGroupName(s.group),
		consumer.WithInstance(s.instance()), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	done(err)
	done(c.Subscribe(s.topic, tagged("*")))
	done(c.Start())
	s.ends = append(s.ends, c.Shutdown)
	return c
}

func (s *stage) fill(count int) {
	p := s.producer()
	for i := 0; i < count; i++ {
		sent(p, text(s.topic, "T", fmt.Sprint("body ", i)))
	}
}

func pull(s *stage) {
	s.fill(40)
	c, seen := s.newPull(), map[string]bool{}
	for _, queue := range s.queues() {
		pulled, err := c.PullFrom(context.Background(), queue, 0, 32)
		done(err)
		for _, m := range pulled.GetMessageExts() {
			need(!seen[bodyOf(m)], "once", bodyOf(m))
			seen[bodyOf(m)] = true
		}
		done(c.UpdateOffset(queue, pulled.NextBeginOffset))
	}
	done(c.PersistOffset(context.Background(), s.topic))
	need(len(seen) == 40, "all of them", len(seen))
}

// It polls, and says what it is done with.
func litePull(s *stage) {
	s.fill(40)
	c, seen := s.newPull(), map[string]bool{}
	for end := time.Now().Add(60 * time.Second); len(seen) < 40 && time.Now().Before(end); {
		polled, err := c.Poll(context.Background(), time.Second)
		if err != nil {
			continue
		}
		for _, m := range polled.GetMsgList() {
			seen[bodyOf(m)] = true
		}
		c.ACK(context.Background(), polled, consumer.ConsumeSuccess)
	}
	need(len(seen) == 40, "all of them", len(seen))
}

func broadcast(s *stage) {
	s.withTopic()
	seen := []*words{s.collect("all", bodyOf, consumer.WithConsumerModel(consumer.BroadCasting)),
		s.collect("all", bodyOf, consumer.WithConsumerModel(consumer.BroadCasting))}
	time.Sleep(3 * time.Second)
	p := s.producer()
	for i := 0; i < 10; i++ {
		sent(p, text(s.topic, "all", fmt.Sprint("body ", i)))
	}
	for _, mine := range seen {
		mine.await(10, 30)
	}
}

func filterByTag(s *stage) {
	p := s.producer()
	for i := 0; i < 30; i++ {
		sent(p, text(s.topic, fmt.Sprint("Tag", i%3), fmt.Sprint("body ", i)))
	}
	found := s.collect("Tag0 || Tag2", func(m *primitive.MessageExt) string { return m.GetTags() }).await(20, 30)
	need(!strings.Contains(strings.Join(found, ","), "Tag1"), "no others", found)
}

func (s *stage) sendColours() {
	p := s.producer()
	for i := 0; i < 20; i++ {
		m := text(s.topic, "T", fmt.Sprint("body ", i))
		m.WithProperty("number", strconv.Itoa(i))
		m.WithProperty("colour", []string{"red", "blue"}[i%2])
		sent(p, m)
	}
}

func bySQL(expression string) consumer.MessageSelector {
	return consumer.MessageSelector{Type: consumer.SQL92, Expression: expression}
}

func filterBySQL(s *stage) {
	s.sendColours()
	found := &words{}
	s.consume(bySQL("number > 9 AND colour = 'red'"), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		found.add(bodyOf(m))
		return consumer.ConsumeSuccess
	})
	need(sameSet(found.await(5, 30), "body 10", "body 12", "body 14", "body 16", "body 18"), "these", found.all())
}

// Where such filters are switched off, nothing arrives: the client does not ask before it starts.
func filterBySQLRefused(s *stage) {
	s.sendColours()
	found := &words{}
	s.consume(bySQL("number > 9"), func(_ context.Context, m *primitive.MessageExt) consumer.ConsumeResult {
		found.add(bodyOf(m))
		return consumer.ConsumeSuccess
	})
	time.Sleep(8 * time.Second)
	need(len(found.all()) == 0, "nothing arrives", found.all())
}

func trace(s *stage) {
	traced := func(group string) *primitive.TraceConfig {
		return &primitive.TraceConfig{GroupName: group + s.suffix, Access: primitive.Local, NamesrvAddrs: []string{s.namesrv},
			Resolver: primitive.NewPassthroughResolver([]string{s.namesrv})}
	}
	id := sent(s.producer(producer.WithTrace(traced("P_"))), text(s.topic, "T", "traced")).MsgID
	s.collect("*", bodyOf, consumer.WithTrace(traced("C_"))).await(1, 30)
	// Traces are sent every five seconds.
	time.Sleep(6 * time.Second)
	reader := &stage{namesrv: s.namesrv, suffix: "trace_" + s.suffix, topic: "RMQ_SYS_TRACE_TOPIC", group: "GID_trace_" + s.suffix, facts: line{}}
	found := reader.collect("*", bodyOf)
	s.ends = append(s.ends, reader.ends...)
	kinds := map[string]bool{}
	for i := 0; i < 80 && len(kinds) < 3; i++ {
		time.Sleep(500 * time.Millisecond)
		for _, record := range found.all() {
			for _, kind := range []string{"Pub", "SubBefore", "SubAfter"} {
				if strings.Contains(record, id) && strings.Contains(record, kind) {
					kinds[kind] = true
				}
			}
		}
	}
	need(len(kinds) == 3, "before, during and after", kinds)
}

func drain(s *stage) {
	p, told := s.producer(), map[string]bool{}
	for i := 0; i < 2000; i++ {
		told[sent(p, text(s.topic, "T", strconv.Itoa(i))).MsgID] = true
	}
	found := s.collect("*", func(m *primitive.MessageExt) string {
		return fmt.Sprint(m.Queue.QueueId, " ", bodyOf(m), " ", m.MsgId)
	}, consumer.WithConsumerOrder(true)).await(2000, 60)
	for _, line := range found {
		id := strings.Fields(line)[2]
		need(told[id], "each once", line)
		delete(told, id)
	}
	need(rise(found), "in the order sent")
}

// ---- administration -------------------------------------------------------------------------------------------------

func administer(s *stage) {
	s.withTopic()
	resolver := primitive.NewPassthroughResolver([]string{s.namesrv})
	a, err := admin.NewAdmin(admin.WithResolver(resolver))
	done(err)
	s.ends = append(s.ends, a.Close)
	address, topic, ctx := s.broker, s.topic+"_made", context.Background()
	done(a.CreateTopic(ctx, admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(address),
		admin.WithReadQueueNums(3), admin.WithWriteQueueNums(3)))
	time.Sleep(time.Second)
	queues, err := a.FetchPublishMessageQueues(ctx, topic)
	done(err)
	need(len(queues) == 3, "three queues", queues)
	topics, err := a.FetchAllTopicList(ctx)
	done(err)
	need(strings.Contains(strings.Join(topics.TopicList, " "), topic), "it is listed", topics.TopicList)
	groups, err := a.GetAllSubscriptionGroup(ctx, address, 3*time.Second)
	done(err)
	need(len(groups.SubscriptionGroupTable) > 0, "there are groups")
	done(a.DeleteTopic(ctx, admin.WithTopicDelete(topic), admin.WithBrokerAddrDelete(address), admin.WithNameSrvAddr([]string{s.namesrv})))
	topics, err = a.FetchAllTopicList(ctx)
	done(err)
	need(!strings.Contains(strings.Join(topics.TopicList, " "), topic), "it is gone", topics.TopicList)
}
