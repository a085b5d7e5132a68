package outbox

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Options are the knobs of an Outbox. The zero value of each field is its
// default. All processes that use one database should have the same Topics.
type Options struct {
	// Batch is how many messages are read, published and acknowledged
	// together. A crash repeats at most one batch that was published and is
	// not acknowledged yet, and for each call at once (see Concurrency) the one
	// being published. At most 100,000; 0 means 100.
	Batch int
	// BatchBytes ends a batch early when its payloads reach this many bytes.
	// A larger message travels alone. 0 means 1 MiB.
	BatchBytes int
	// MaxPayload is how many bytes the payload of a message may have. Think of
	// what the destination takes (NATS and Kafka 1 MiB, SQS 256 KiB) and of
	// what the database takes in one statement (max_allowed_packet of MySQL).
	// 0 means 4 MiB.
	MaxPayload int

	// Concurrency is how many calls of Publish run at once in one process. 0
	// means as many as the Topics may have together, or 1 if there are none. More than 1 asks
	// for a Publisher that is safe for concurrent use; no two calls at once
	// have messages of one key.
	Concurrency int
	// Topics, if not empty, are the topics that there are: Add refuses others.
	// Each has a queue of its own, so that one whose destination is slow or
	// whose backlog is long delays no other, and a batch has messages of one
	// topic only. Without it there is one queue for all.
	Topics map[string]Topic

	// PollMin and PollMax bound the time between two looks at an empty
	// outbox. It starts at PollMin after each message and doubles up to
	// PollMax, with jitter. PollMax is how late a message of another process,
	// a delayed message, a retry, a paused topic, or a drainer that came or
	// went may be noticed. 0 means 10 ms and 1 s.
	PollMin, PollMax time.Duration

	// Lease is how long a drainer that died keeps others from taking over its
	// keys. A living one renews it three times as often, also while it
	// publishes or is idle: one small write each. At least 10 ms; 0 means 10 s.
	Lease time.Duration

	// RetryBase and RetryMax set the wait after a failure: after attempt n it
	// is random between 0 and RetryBase*2^(n-1), and never above RetryMax
	// ("full jitter", see
	// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
	// 0 means 1 s and 10 min.
	RetryBase, RetryMax time.Duration
	// MaxAttempts is after how many failures a message is dead. 0 means 100:
	// with the other defaults about eight hours, so that a destination may be
	// down for a night. Negative means never: the message holds up its key
	// until it is delivered.
	MaxAttempts int

	// Retention says what becomes of messages that were delivered. The zero
	// value deletes them.
	Retention Retention
	// Keep is for how long Archive and Rotate keep delivered messages. 0 means
	// seven days. It has no meaning with Delete.
	Keep time.Duration

	// Headers, if set, is called once in each Add with its context and returns
	// headers for all its messages, such as the traceparent of W3C Trace
	// Context. Headers that a message has itself win.
	Headers func(context.Context) map[string]string
	// Trace, if set, is told what happens.
	Trace *Trace
	// Logger is told about failed attempts and retried database errors
	// (warning), dead messages and panics (error), and who drains (info). Nil
	// is silent.
	Logger *slog.Logger
}

// A Topic says how the messages of a topic are treated beside those of others.
type Topic struct {
	// Weight is the topic's share of the calls of Publish, while topics
	// compete for them: one of weight 4 sends four messages while one of
	// weight 1 sends one (deficit round robin, M. Shreedhar and G. Varghese,
	// SIGCOMM 1995). 0 means 1; at most 1000.
	Weight int
	// Concurrency is how many of the calls may be for this topic at once. 0
	// means 1.
	Concurrency int
}

// Retention says what becomes of a message that was delivered.
type Retention int

const (
	// Delete removes it.
	Delete Retention = iota
	// Archive moves it to the table outbox_archive_0, from which it is
	// deleted after Options.Keep, in small steps. It costs about as much as
	// adding the message again.
	Archive
	// Rotate moves it to one of the three tables outbox_archive_0 to
	// outbox_archive_2, which take turns: the oldest is emptied as a whole
	// (TRUNCATE), so no row is ever deleted and nothing needs to be vacuumed.
	// A message is kept for Options.Keep and at most half as long again.
	Rotate
)

// withDefaults returns o with its zero fields filled in.
func (o Options) withDefaults() (Options, error) {
	topics, err := topicsWithDefaults(o.Topics)
	if err != nil {
		return o, err
	}
	o.Topics = topics
	calls := 0
	for _, t := range topics {
		calls = min(calls+min(t.Concurrency, math.MaxInt32), math.MaxInt32)
	}
	for _, f := range [...]struct {
		name string
		n    *int
		def  int
	}{
		{"Batch", &o.Batch, 100},
		{"BatchBytes", &o.BatchBytes, 1 << 20},
		{"MaxPayload", &o.MaxPayload, 4 << 20},
		{"Concurrency", &o.Concurrency, max(1, calls)},
	} {
		if *f.n < 0 {
			return o, fmt.Errorf("%w: Options.%s is %d, want 0 (meaning %d) or more", ErrInvalid, f.name, *f.n, f.def)
		}
		if *f.n == 0 {
			*f.n = f.def
		}
	}
	for _, f := range [...]struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"PollMin", &o.PollMin, 10 * time.Millisecond},
		{"PollMax", &o.PollMax, max(time.Second, o.PollMin)},
		{"Lease", &o.Lease, 10 * time.Second},
		{"RetryBase", &o.RetryBase, time.Second},
		{"RetryMax", &o.RetryMax, max(10*time.Minute, o.RetryBase)},
		{"Keep", &o.Keep, 7 * 24 * time.Hour},
	} {
		if *f.d < 0 {
			return o, fmt.Errorf("%w: Options.%s is %v, want 0 (meaning %v) or more", ErrInvalid, f.name, *f.d, f.def)
		}
		if *f.d == 0 {
			*f.d = f.def
		}
	}
	if o.PollMin > o.PollMax {
		return o, fmt.Errorf("%w: Options.PollMin is %v, want at most PollMax, which is %v", ErrInvalid, o.PollMin, o.PollMax)
	}
	if o.Lease < minLease {
		return o, fmt.Errorf("%w: Options.Lease is %v, want at least %v", ErrInvalid, o.Lease, minLease)
	}
	if o.RetryBase > o.RetryMax {
		return o, fmt.Errorf("%w: Options.RetryBase is %v, want at most RetryMax, which is %v", ErrInvalid, o.RetryBase, o.RetryMax)
	}
	if o.Retention < Delete || o.Retention > Rotate {
		return o, fmt.Errorf("%w: Options.Retention is %d, want Delete, Archive or Rotate", ErrInvalid, o.Retention)
	}
	if o.Batch > maxBatch {
		return o, fmt.Errorf("%w: Options.Batch is %d, want at most %d", ErrInvalid, o.Batch, maxBatch)
	}
	if o.MaxAttempts == 0 {
		o.MaxAttempts = 100
	}
	if o.Trace == nil {
		o.Trace = new(Trace)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

const minLease = 10 * time.Millisecond

// maxBatch is more than any database or destination takes at once.
const maxBatch = 100_000

// maxWeight keeps the turns of one topic short enough for the others.
const maxWeight = 1000

func topicsWithDefaults(topics map[string]Topic) (map[string]Topic, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	out := make(map[string]Topic, len(topics))
	for name, t := range topics {
		if wrong := (&Message{Topic: name}).validate(0); wrong != "" {
			return nil, fmt.Errorf("%w: Options.Topics: %s", ErrInvalid, wrong)
		}
		if t.Weight < 0 || t.Weight > maxWeight {
			return nil, fmt.Errorf("%w: Options.Topics[%q].Weight is %d, want 0 (meaning 1) to %d", ErrInvalid, name, t.Weight, maxWeight)
		}
		if t.Concurrency < 0 {
			return nil, fmt.Errorf("%w: Options.Topics[%q].Concurrency is %d, want 0 (meaning 1) or more", ErrInvalid, name, t.Concurrency)
		}
		out[name] = Topic{Weight: max(1, t.Weight), Concurrency: max(1, t.Concurrency)}
	}
	return out, nil
}
