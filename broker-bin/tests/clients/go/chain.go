package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// Producers and consumers of the chain (see README.md). A message's body says what becomes of it: its number, a word,
// and how often. They live until they are killed, and what they wrote down by then counts.

type chainPlan struct {
	RetrySeconds int64 `json:"retry_seconds"`
	PaceMs       int64 `json:"pace_ms"`
	TimeoutMs    int64 `json:"timeout_ms"`
	Messages     []chainItem
}

type chainItem struct {
	Index, Level, Queue int
	DelayMs             int `json:"delay_ms"`
	Kind, Topic         string
	Key, Body           string
}

// appending opens a file that several processes append whole lines to.
func appending(file string) *os.File {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	must(err)
	return out
}

// script reads a body: its number, its word, and how often.
func script(body []byte) (string, string, int) {
	parts := append(strings.Fields(string(body)), "", "", "0")
	times, err := strconv.Atoi(parts[2])
	if err != nil {
		times = 0
	}
	return parts[0], parts[1], times
}

// counts how often something was met.
type counts struct {
	mu  sync.Mutex
	met map[string]int
}

func (c *counts) add(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met[what]++
	return c.met[what]
}

type chainDecider struct{ asked *counts }

func (d chainDecider) ExecuteLocalTransaction(m *primitive.Message) primitive.LocalTransactionState {
	_, word, _ := script(m.Body)
	return decided(word, false)
}

// CheckLocalTransaction tells whoever asks often enough.
func (d chainDecider) CheckLocalTransaction(m *primitive.MessageExt) primitive.LocalTransactionState {
	index, word, times := script(m.Body)
	return decided(word, d.asked.add(index) > times)
}

func decided(word string, isAsked bool) primitive.LocalTransactionState {
	switch {
	case word == "commit" || word == "ask-commit" && isAsked:
		return primitive.CommitMessageState
	case word == "rollback" || word == "ask-rollback" && isAsked:
		return primitive.RollbackMessageState
	}
	return primitive.UnknowState
}

func chainSend(namesrv, group, planFile, acked string) {
	raw, err := os.ReadFile(planFile)
	must(err)
	var p chainPlan
	must(json.Unmarshal(raw, &p))
	options := func(group string) []producer.Option {
		return []producer.Option{
			producer.WithNameServer([]string{namesrv}),
			producer.WithGroupName(group),
			producer.WithInstanceName(fmt.Sprint(group, "@", os.Getpid())),
			producer.WithRetry(0),
			producer.WithSendMsgTimeout(time.Duration(p.TimeoutMs) * time.Millisecond),
			producer.WithQueueSelector(chainSelector{}),
		}
	}
	plain, err := rocketmq.NewProducer(options(group)...)
	must(err)
	must(plain.Start())
	transactional, err := rocketmq.NewTransactionProducer(chainDecider{&counts{met: map[string]int{}}}, options(group+"_tx")...)
	must(err)
	must(transactional.Start())
	out := appending(acked)
	for _, item := range p.Messages {
		m := chainMessage(item)
		l := line{"index": item.Index, "started": time.Now().UnixMilli()}
		end := time.Now().Add(time.Duration(p.RetrySeconds) * time.Second)
		for attempts := 1; ; attempts++ {
			l["attempts"] = attempts
			if chainAttempt(plain, transactional, item, m, l) || !time.Now().Before(end) {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		l["ended"] = time.Now().UnixMilli()
		write(out, l)
		time.Sleep(time.Duration(p.PaceMs) * time.Millisecond)
	}
	// Somebody may still be asked about what this one began.
	select {}
}

// chainSelector takes the queue that a message names, or any.
type chainSelector struct{}

func (chainSelector) Select(m *primitive.Message, queues []*primitive.MessageQueue, last string) *primitive.MessageQueue {
	if queue, err := strconv.Atoi(m.GetProperty("chain_queue")); err == nil {
		for _, q := range queues {
			if q.QueueId == queue {
				return q
			}
		}
	}
	return queues[int(time.Now().UnixNano()/1000)%len(queues)]
}

func chainMessage(item chainItem) *primitive.Message {
	m := primitive.NewMessage(item.Topic, []byte(item.Body)).WithTag("T").WithKeys([]string{item.Key})
	if item.Level > 0 {
		m.WithDelayTimeLevel(item.Level)
	}
	if item.DelayMs > 0 {
		m.WithProperty("TIMER_DELAY_MS", strconv.Itoa(item.DelayMs))
	}
	if item.Kind == "ordered" {
		m.WithProperty("chain_queue", strconv.Itoa(item.Queue))
	}
	return m
}

func chainAttempt(plain rocketmq.Producer, transactional rocketmq.TransactionProducer, item chainItem, m *primitive.Message, l line) bool {
	var r *primitive.SendResult
	var err error
	if item.Kind == "transaction" {
		var t *primitive.TransactionSendResult
		if t, err = transactional.SendMessageInTransaction(context.Background(), m); t != nil {
			r = t.SendResult
		}
	} else {
		r, err = plain.SendSync(context.Background(), m)
	}
	if err != nil || r == nil {
		l["status"], l["error"] = "refused", fmt.Sprint(err)
		return false
	}
	l["status"] = "acked"
	if r.Status != primitive.SendOK {
		l["status"] = fmt.Sprint("status ", r.Status)
	}
	if r.MessageQueue != nil {
		l["queueId"], l["queueOffset"] = r.MessageQueue.QueueId, r.QueueOffset
	}
	return r.Status == primitive.SendOK
}

func chainConsume(namesrv, group, topic string, orderly bool, name, file string) {
	out, seen := appending(file), &counts{met: map[string]int{}}
	client, err := rocketmq.NewPushConsumer(
		consumer.WithNameServer([]string{namesrv}),
		consumer.WithGroupName(group),
		consumer.WithInstance(fmt.Sprint(name, "@", os.Getpid())),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithConsumerOrder(orderly),
		consumer.WithConsumeMessageBatchMaxSize(1),
		consumer.WithMaxReconsumeTimes(chainAttempts(orderly)),
		consumer.WithSuspendCurrentQueueTimeMillis(200*time.Millisecond),
	)
	must(err)
	must(client.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"},
		func(x context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			m := ms[0]
			write(out, chainLine(name, "begin", m))
			index, word, times := script(m.Body)
			if word == "slow" {
				time.Sleep(time.Duration(times) * time.Millisecond)
			}
			if orderly && word == "again" && seen.add(index) <= times {
				write(out, chainLine(name, "again", m))
				return consumer.SuspendCurrentQueueAMoment, nil
			}
			if !orderly && (word == "dead" || word == "fail" && int(m.ReconsumeTimes) < times) {
				if c, ok := primitive.GetConcurrentlyCtx(x); ok {
					c.DelayLevelWhenNextConsume = 1
				}
				write(out, chainLine(name, "fail", m))
				return consumer.ConsumeRetryLater, nil
			}
			write(out, chainLine(name, "done", m))
			return consumer.ConsumeSuccess, nil
		}))
	must(client.Start())
	select {}
}

func chainAttempts(orderly bool) int32 {
	if orderly {
		return -1
	}
	return 2
}

func chainLine(name, what string, m *primitive.MessageExt) line {
	index, _, _ := script(m.Body)
	number, err := strconv.Atoi(index)
	must(err)
	return line{"by": name, "what": what, "index": number, "queueId": m.Queue.QueueId, "queueOffset": m.QueueOffset,
		"attempts": m.ReconsumeTimes, "at": time.Now().UnixMilli()}
}
