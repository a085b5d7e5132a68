package outbox

import "time"

// A Trace is told what a drainer does, for metrics and tests. Each field may be
// nil. The functions are called by the goroutines that do the work, several at
// once, so they must be safe for concurrent use and return soon.
type Trace struct {
	// Published is called after each call of Publish: how many messages it
	// had, how many of them failed, and how long it took. Topic is "" if the
	// batch had messages of several topics.
	Published func(topic string, messages, failed int, took time.Duration)
	// Acknowledged is called when deliveries are written down: how many, and
	// how long it was since the oldest of them was added.
	Acknowledged func(messages int, oldest time.Duration)
	// Dead is called when a message has become dead. Its LastError says why.
	Dead func(Message)
	// Leased is called when the drainer's buckets change: it has so many of
	// so many, 0 when it has ended or lost its lease.
	Leased func(epoch int64, buckets, of int)
}
